package web

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/alert"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/health"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// Store is what pages are read from. An aggregator.Store is one.
type Store interface {
	Overview(ctx context.Context) (aggregator.Overview, error)
	Stats(ctx context.Context) (aggregator.Stats, error)
	Days(ctx context.Context, first, last schema.Day) ([]aggregator.DayTotals, error)
	OpenDays(ctx context.Context) ([]schema.Day, error)
	CountOpenDay(ctx context.Context, day schema.Day) (aggregator.OpenDay, error)
	OpenFailing(ctx context.Context, o aggregator.OpenDay, after aggregator.DomainTotals, limit int) ([]aggregator.DomainTotals, error)
	Failing(ctx context.Context, day schema.Day, after aggregator.DomainTotals, limit int) ([]aggregator.DomainTotals, error)
	TotalsOf(ctx context.Context, day schema.Day, domains []string) ([]aggregator.DomainTotals, error)
	Names(ctx context.Context, f func([]string) error) error
	History(ctx context.Context, domain string, first, last schema.Day) ([]aggregator.DomainDay, error)
	Counted(ctx context.Context, domain string, day schema.Day) ([]schema.PolicyResult, error)
	KnownDomain(ctx context.Context, domain string) (record string, seen time.Time, err error)
	DeliveryPage(ctx context.Context, f aggregator.DeliveryFilter, before int64, limit int) ([]aggregator.Delivery, int64, error)
	Suppressions(ctx context.Context, f func(aggregator.Suppression) error) error
}

// Monitor says how the agent does. A health.Monitor is one.
type Monitor interface {
	Report() health.Report
	Alive() bool
	Sources() []health.Source
	RelayRefuses() bool
}

// Options of a Server. Store and Monitor are required.
type Options struct {
	Store   Store
	Monitor Monitor
	Alerter *alert.Alerter // nil: nothing is watched
	Metrics *Metrics       // nil: /metrics is not there

	// NextRun is when days are submitted next; nil: reports are not sent.
	NextRun func(now time.Time) time.Time

	// Preview makes the report about a domain and a day. Its error may be
	// aggregator.ErrNoData.
	Preview func(ctx context.Context, domain string, day schema.Day) (submitter.Parcel, error)

	// Message is a report as it is mailed to a rua; nil: nothing is mailed.
	Message func(p submitter.Parcel, to schema.RUA) ([]byte, error)

	// Keep is for how long days are kept; zero: for ever.
	Keep time.Duration

	// Token lets in who has it; "": who reaches the socket, which then must be on
	// loopback, see CheckListen.
	Token string

	Version string
	Logger  *slog.Logger // nil discards
}

//go:embed assets templates
var files embed.FS

// Server answers HTTP. It is safe for concurrent use.
type Server struct {
	o      Options
	pages  map[string]*template.Template
	assets map[string]asset
	mux    *http.ServeMux
	slots  chan struct{} // held by who makes a page
	open   cache[schema.Day, aggregator.OpenDay]
	names  cache[string, []string]
	logins chan struct{} // held by who gives a token
	now    func() time.Time
}

const (
	maxPages    = 8                // made at once; the store has four readers
	pageTimeout = 10 * time.Second // for one page
)

// New makes a Server.
func New(o Options) (*Server, error) {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.Token != "" && len(o.Token) < minToken {
		return nil, fmt.Errorf("web: the token has %d characters, fewer than %d", len(o.Token), minToken)
	}
	s := &Server{
		o: o, mux: http.NewServeMux(), slots: make(chan struct{}, maxPages), logins: make(chan struct{}, 1),
		now: time.Now,
	}
	var err error
	if s.assets, err = loadAssets(); err != nil {
		return nil, err
	}
	if s.pages, err = s.loadPages(); err != nil {
		return nil, err
	}
	if o.Metrics != nil {
		if err := o.Metrics.registry.Register(state{s}); err != nil {
			return nil, fmt.Errorf("web: %w", err)
		}
	}
	s.route()
	return s, nil
}

func (s *Server) route() {
	s.page("GET /{$}", s.overview)
	s.page("GET /domains", s.domains)
	s.page("GET /domains/{domain}", s.domain)
	s.page("GET /domains/{domain}/{day}", s.report)
	s.page("GET /domains/{domain}/{day}/report.json", s.reportJSON)
	s.page("GET /domains/{domain}/{day}/report.eml", s.reportMail)
	s.page("GET /deliveries", s.deliveries)
	s.page("GET /suppressions", s.suppressions)
	s.page("GET /", func(http.ResponseWriter, *http.Request) error { return errNotFound })
	s.mux.HandleFunc("GET /assets/{name}", s.asset)
	s.mux.HandleFunc("GET /healthz", s.healthz)
	s.mux.HandleFunc("GET /readyz", s.readyz)
	if s.o.Metrics != nil {
		s.mux.Handle("GET /metrics", s.inside(s.o.Metrics.handler()))
	}
	if s.o.Token != "" {
		s.mux.HandleFunc("GET /login", s.loginForm)
		s.mux.HandleFunc("POST /login", s.login)
	}
}

// errNotFound makes a page say that there is nothing.
var errNotFound = errors.New("web: there is nothing here")

// ErrNoReports means that the settings do not say who reports.
var ErrNoReports error = badRequest("Without organization.contact no report can be made.")

// badRequest is a fault in what was asked.
type badRequest string

func (e badRequest) Error() string { return string(e) }

// page routes to a handler that makes a page, for those who may see it.
func (s *Server) page(pattern string, make func(http.ResponseWriter, *http.Request) error) {
	s.mux.Handle(pattern, s.inside(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
		defer cancel()
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-ctx.Done():
			http.Error(w, "too many pages are asked for at once", http.StatusServiceUnavailable)
			return
		}
		err := make(&timedWriter{ResponseWriter: w, begun: begun}, r.WithContext(ctx))
		if err != nil {
			s.fail(w, r, err)
		}
	})))
}

// timedWriter says how long the page took, in the words of Server-Timing.
type timedWriter struct {
	http.ResponseWriter
	begun time.Time
}

func (w *timedWriter) WriteHeader(code int) {
	took := float64(time.Since(w.begun).Microseconds()) / 1000
	w.Header().Set("Server-Timing", "page;dur="+strconv.FormatFloat(took, 'f', 1, 64))
	w.ResponseWriter.WriteHeader(code)
}

// fail answers with a page that says what went wrong. Faults of ours go to the log.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	code, text := http.StatusInternalServerError, "The page could not be made. The log says why."
	var bad badRequest
	switch {
	case errors.As(err, &bad):
		code, text = http.StatusBadRequest, string(bad)
	case errors.Is(err, errNotFound), errors.Is(err, aggregator.ErrNoData):
		code, text = http.StatusNotFound, "There is nothing here."
	case errors.Is(err, context.DeadlineExceeded):
		code, text = http.StatusServiceUnavailable, "The store took too long to answer. Try again."
	}
	if code >= 500 && r.Context().Err() == nil {
		s.o.Logger.Error("page", "path", r.URL.Path, "error", err)
	}
	body, renderErr := s.execute("error", s.frame(r, http.StatusText(code), "", text))
	if renderErr != nil {
		http.Error(w, text, code)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	w.Write(body)
}

// frame is what every page has.
type frame struct {
	Title   string
	Nav     string // the entry that is the present page
	Now     time.Time
	Version string
	Healthy bool
	Page    any
}

func (s *Server) frame(_ *http.Request, title, nav string, page any) frame {
	return frame{
		Title: title, Nav: nav, Now: s.now().UTC(), Version: s.o.Version,
		Healthy: s.o.Monitor.Report().Ready(), Page: page,
	}
}

// render sends a page.
func (s *Server) render(w http.ResponseWriter, r *http.Request, name, title, nav string, page any) error {
	body, err := s.execute(name, s.frame(r, title, nav, page))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	_, err = w.Write(body)
	if err != nil {
		s.o.Logger.Debug("page was not read", "error", err)
	}
	return nil
}

// execute is a whole page: one that fails half way is not sent at all.
func (s *Server) execute(name string, f frame) ([]byte, error) {
	var b bytes.Buffer
	if err := s.pages[name].ExecuteTemplate(&b, "layout", f); err != nil {
		return nil, fmt.Errorf("web: page %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// loadPages parses each page with the layout.
func (s *Server) loadPages() (map[string]*template.Template, error) {
	functions := template.FuncMap{
		"number":  func(n any) string { return number(integer(n)) },
		"percent": percent, "share": share, "clock": clock, "size": size,
		"show":  func(v any) string { return show(fmt.Sprint(v), maxShown) },
		"brief": func(n int, v any) string { return show(fmt.Sprint(v), n) },
		"about": func(t time.Time) string { return about(t, s.now()) },
		"asset": func(name string) string { return "/assets/" + name + "?v=" + s.assets[name].hash },
		"sum":   func(t schema.Summary) int64 { return t.Success + t.Failure },
		"total": func(m map[string]int64) (n int64) {
			for _, v := range m {
				n += v
			}
			return n
		},
		"words": func(t schema.ResultType) string { return show(t.Words(), maxShown) },
	}
	layout, err := template.New("").Funcs(functions).ParseFS(files, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, err
	}
	pages := map[string]*template.Template{}
	for _, name := range []string{"overview", "domains", "domain", "report", "deliveries", "suppressions", "error", "login"} {
		page, err := layout.Clone()
		if err == nil {
			page, err = page.ParseFS(files, "templates/"+name+".html")
		}
		if err != nil {
			return nil, err
		}
		pages[name] = page
	}
	return pages, nil
}

// integer is an int or an int64.
func integer(n any) int64 {
	if i, ok := n.(int); ok {
		return int64(i)
	}
	return n.(int64)
}

// asset is a file that pages refer to.
type asset struct {
	text []byte
	kind string
	hash string // of text: a page names it, so that a new version is fetched
}

func loadAssets() (map[string]asset, error) {
	entries, err := files.ReadDir("assets")
	if err != nil {
		return nil, err
	}
	all := map[string]asset{}
	for _, e := range entries {
		text, err := files.ReadFile("assets/" + e.Name())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		a := asset{text: text, kind: "text/plain; charset=utf-8", hash: hex.EncodeToString(sum[:6])}
		for ending, kind := range map[string]string{
			".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
		} {
			if strings.HasSuffix(e.Name(), ending) {
				a.kind = kind
			}
		}
		all[e.Name()] = a
	}
	return all, nil
}

func (s *Server) asset(w http.ResponseWriter, r *http.Request) {
	a, ok := s.assets[r.PathValue("name")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Write(a.text)
}

// Serve answers on l until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if srv.Shutdown(closing) != nil {
			srv.Close()
		}
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("web: %w", err)
	}
	return nil
}
