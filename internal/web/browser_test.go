package web

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

var shots = flag.String("shots", "", "write screenshots of every page into this directory")

// browser is a Chromium and what it complains of.
type browser struct {
	testing.TB
	ctx  context.Context
	base string

	mu         sync.Mutex
	complaints []string
}

// startBrowser starts a Chromium on the pages of s.
func startBrowser(t testing.TB, s *Server) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("needs the Debian package chromium")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	serving, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	served := make(chan error, 1)
	go func() { served <- s.Serve(serving, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	// No page is a stranger's, and as root Chromium has no sandbox.
	o := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.WSURLReadTimeout(2*time.Minute))
	ctx, stop := chromedp.NewExecAllocator(serving, o...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(ctx)
	t.Cleanup(end)
	b := &browser{TB: t, ctx: ctx, base: "http://" + l.Addr().String()}
	b.do()
	must(t, chromedp.Listen(ctx, b.listen))
	for _, enable := range []cdp.Command[cdp.Empty, cdp.Empty]{log.Enable, runtime.Enable} {
		_, err := chromedp.Call(ctx, enable, cdp.Empty{})
		must(t, err)
	}
	_, err = chromedp.Call(ctx, network.Enable, network.EnableParams{})
	must(t, err)
	return b
}

// listen notes what a page must not do.
func (b *browser) listen(event any) {
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		for _, arg := range e.Args {
			b.complain("console: %s: %s", e.Type, arg.Value)
		}
	case *runtime.EventExceptionThrown:
		b.complain("exception: %s", e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		b.complain("log: %s %s", e.Entry.Text, e.Entry.URL)
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err != nil || u.Scheme != "data" && u.Scheme != "blob" && "http://"+u.Host != b.base {
			b.complain("request of another place: %s", e.Request.URL)
		}
	}
}

func (b *browser) complain(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.complaints = append(b.complaints, fmt.Sprintf(format, args...))
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	must(b, chromedp.Do(b.ctx, steps...))
}

// number is the value of an expression on the page.
func (b *browser) number(expression string) float64 {
	b.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[float64](expression))
	must(b, err)
	return v
}

// none waits until an expression is 0, and returns what it is at last: charts are
// drawn, and fit to a new width, a moment later than the page.
func (b *browser) none(expression string) (n float64) {
	b.Helper()
	for range 100 {
		if n = b.number(expression); n == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return n
}

// open opens a page and looks at it in every form.
func (b *browser) open(name, path string) {
	b.Helper()
	b.do(chromedp.Navigate(b.base+path), chromedp.WaitVisible(chromedp.CSS("main")))
	b.seen(name)
}

// seen checks the page that is shown.
func (b *browser) seen(name string) {
	b.Helper()
	title, err := chromedp.Run(b.ctx, chromedp.Title())
	must(b, err)
	took := b.number(`performance.getEntriesByType("navigation")[0].serverTiming.reduce((n, t) => n + t.duration, 0)`)
	b.Logf("%-12s %6.1f ms on the server: %s", name, took, title)
	if n := b.number(`document.querySelectorAll("main script, main img, main iframe").length`); n > 0 {
		b.Errorf("%s: %v elements that no template has", name, n)
	}
	if n := b.none(`document.querySelectorAll("[data-chart]:not(:has(canvas))").length`); n > 0 {
		b.Errorf("%s: %v charts are not drawn", name, n)
	}
	for _, form := range []struct {
		name          string
		width, height int64
		scheme        string
	}{{"wide-light", 1280, 900, "light"}, {"wide-dark", 1280, 900, "dark"}, {"phone-light", 390, 844, "light"}, {"phone-dark", 390, 844, "dark"}} {
		b.do(chromedp.EmulateViewport(form.width, form.height))
		_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: form.scheme}}})
		must(b, err)
		if n := b.none(`document.documentElement.scrollWidth - document.documentElement.clientWidth`); n > 0 {
			b.Errorf("%s, %s: the page is %v pixels wider than the screen", name, form.name, n)
		}
		if *shots != "" {
			b.do(chromedp.Sleep(150 * time.Millisecond))
			png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
			must(b, err)
			must(b, os.WriteFile(filepath.Join(*shots, name+"-"+form.name+".png"), png, 0o644))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.complaints {
		b.Errorf("%s: %s", name, c)
	}
	b.complaints = nil
}

// click follows a link and waits until the next page is there.
func (b *browser) click(name, link string) {
	b.Helper()
	_, err := chromedp.RunResponse(b.ctx, chromedp.Click(chromedp.CSS(link)))
	if err != nil {
		b.Fatalf("%s: %s: %v", name, link, err)
	}
	b.do(chromedp.WaitVisible(chromedp.CSS("main")))
	b.seen(name)
}

// TestBrowser clicks through every page, with 100,000 domains and 30 days in the
// store.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills a large store")
	}
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("needs the Debian package chromium")
	}
	now := time.Now().UTC()
	size := filling{domains: 100_000, full: 500, days: 30, today: schema.DayOf(now)}
	store := fill(t, size)
	b := startBrowser(t, newServer(t, options(store, now), now))
	b.open("overview", "/")
	b.click("domains", `nav a[href="/domains"]`)
	b.click("domains-2", `a[rel=next]`)
	b.click("domains-name", `.tabs a[href*="sort=name"]`)
	b.do(chromedp.SendKeys(chromedp.CSS(`input[name=q]`), "000000"))
	b.click("search", `form.filter button`)
	b.click("domain", `tbody a`)
	b.click("report", `#days tbody tr:nth-child(2) a`)
	b.click("deliveries", `nav a[href="/deliveries"]`)
	b.click("gave-up", `.tabs a[href*="state=gave-up"]`)
	b.click("older", `a[rel=next]`)
	b.click("suppressions", `nav a[href="/suppressions"]`)
	b.click("day", `nav a[href="/"]`)
	b.click("day", `#days tbody tr:nth-child(3) a`)
	b.open("none", "/domains?q=nowhere.example")
}
