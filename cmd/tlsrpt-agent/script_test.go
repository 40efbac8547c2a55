package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func TestMain(m *testing.M) {
	if args := os.Getenv(daemonEnv); args != "" {
		os.Args = append(os.Args[:1], strings.Fields(args)...)
		main()
	}
	testscript.Main(m, map[string]func(){"tlsrpt-agent": main})
}

// TestScripts runs the program as an operator does: one script per command and
// per promise. Beside "tlsrpt-agent", scripts know
//
//	world                  start DNS, HTTPS and SMTP servers; write config.toml and a key
//	zone TYPE NAME DATA... make these the only records of a type: txt, mx or addr
//	publish DOMAIN RECORD  make RECORD the domain's TLSRPT record
//	mx DOMAIN              make the SMTP server the MX host of DOMAIN, at port 25
//	count FILE             count sessions: lines of "day domain policy-type success failure [result-type]"
//	send FILE SOCKET       send each line as a datagram
//	await FILE TEXT        wait until FILE contains TEXT
//	fetch LOG PATH [TOKEN] write the answer of the dashboard that LOG names to the file "fetched"
//	arrived                print what was delivered and what is wrong in it
//	age FILE DAYS          let days pass for a store
//	returned RCPT STATUS FILE  write the bounce of the newest mail to RCPT
//	sql FILE SQL           run the statements of a file on a database
//
// In FILEs @TODAY@ and @YESTERDAY@ stand for days.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			today := schema.DayOf(time.Now())
			env.Setenv("TODAY", today.String())
			env.Setenv("YESTERDAY", (today - 1).String())
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"world": startWorld, "zone": setZone, "publish": publish, "mx": publishMX, "count": count, "send": send, "fetch": fetch,
			"await": await, "arrived": printArrived, "age": age, "returned": returned, "sql": runSQL,
		},
		Condition: func(name string) (bool, error) {
			if name != "port25" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			l, err := net.Listen("tcp", mxAddr+":25")
			if err == nil {
				l.Close()
			}
			return err == nil, nil
		},
		UpdateScripts: *update,
	})
}

func scriptError(ts *testscript.TestScript, err error) {
	if err != nil {
		ts.Fatalf("%v", err)
	}
}

// worlds is the *receiver.World of each script, by its working directory. Scripts
// run at the same time.
var worlds sync.Map

func worldOf(ts *testscript.TestScript) *receiver.World {
	w, ok := worlds.Load(ts.Getenv("WORK"))
	if !ok {
		ts.Fatalf("the script has no world")
	}
	return w.(*receiver.World)
}

func startWorld(ts *testscript.TestScript, _ bool, _ []string) {
	w, err := receiver.Start(receiver.Options{})
	scriptError(ts, err)
	ts.Defer(func() { w.Close() })
	dir := ts.Getenv("WORK")
	worlds.Store(dir, w)
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		scriptError(ts, os.WriteFile(path, text, 0o600))
		return path
	}
	var record bytes.Buffer
	a := &app{stdout: &record}
	scriptError(ts, a.keygen(nil, filepath.Join(dir, "dkim.pem"), "rsa", "example.com", "tlsrpt"))
	zone, _, _ := strings.Cut(record.String(), "\n")
	name, txt, _ := strings.Cut(zone, ". IN TXT (")
	txt = strings.NewReplacer(`" "`, "", `"`, "", ")", "").Replace(txt)
	w.Zone.SetTXT(name, strings.TrimSpace(txt))
	write("config.toml", fmt.Appendf(nil, `
[organization]
name = "Example Inc."
contact = "tls-reports@example.com"
[store]
path = %q
[[source.libtlsrpt]]
socket = %q
[dns]
servers = [%q]
[mail]
via = "smtp://%s"
helo = "out.example.com"
[dkim]
key = %q
[https]
ca_file = %q
ports = [1, 443, %d]
[submit] # last, so that a script can add to it
allow_private = true
grace = "0s"
`, filepath.Join(dir, "tlsrpt.db"), filepath.Join(dir, "tlsrpt.sock"), w.Zone.Addr(), w.SMTP.Addr(),
		filepath.Join(dir, "dkim.pem"), write("ca.pem", w.HTTPS.CAPEM()), w.HTTPS.Port()))
	ts.Setenv("HTTPS", w.URL(""))
	store, err := aggregator.Open(filepath.Join(dir, "tlsrpt.db"), aggregator.Options{})
	scriptError(ts, err)
	_, err = store.SubmissionSince(context.Background(), time.Now())
	scriptError(ts, errors.Join(err, store.Close()))
}

func setZone(ts *testscript.TestScript, _ bool, args []string) {
	zone, name, data := worldOf(ts).Zone, args[1], args[2:]
	switch args[0] {
	case "txt":
		zone.SetTXT(name, data...)
	case "mx":
		zone.SetMX(name, data...)
	case "addr":
		var addrs []netip.Addr
		for _, a := range data {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		zone.SetAddr(name, addrs...)
	default:
		ts.Fatalf("zone has no type %q", args[0])
	}
}

func publish(ts *testscript.TestScript, _ bool, args []string) {
	worldOf(ts).Publish(args[0], strings.Join(args[1:], " "))
}

// mxAddr is where one script at a time may have an MX host.
const mxAddr = "127.0.0.77"

// publishMX passes on what comes to port 25 of the MX host that it makes.
func publishMX(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	w.Zone.SetMX(args[0], "mx."+args[0])
	w.Zone.SetAddr("mx."+args[0], netip.MustParseAddr(mxAddr))
	l, err := net.Listen("tcp", mxAddr+":25")
	scriptError(ts, err)
	var running sync.WaitGroup
	ts.Defer(func() { l.Close(); running.Wait() })
	running.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer in.Close()
				out, err := net.Dial("tcp", w.SMTP.Addr())
				if err != nil {
					return
				}
				defer out.Close()
				running.Go(func() { io.Copy(out, in); out.(*net.TCPConn).CloseWrite() })
				io.Copy(in, out)
			})
		}
	})
}

// lines is the lines of a file of the script, with days filled in.
func lines(ts *testscript.TestScript, file string) []string {
	text := strings.NewReplacer("@TODAY@", ts.Getenv("TODAY"), "@YESTERDAY@", ts.Getenv("YESTERDAY")).Replace(ts.ReadFile(file))
	return strings.Split(strings.TrimSpace(text), "\n")
}

func count(ts *testscript.TestScript, _ bool, args []string) {
	store, err := aggregator.Open(filepath.Join(ts.Getenv("WORK"), "tlsrpt.db"), aggregator.Options{})
	scriptError(ts, err)
	defer store.Close()
	var counts []schema.Count
	for _, line := range lines(ts, args[0]) {
		f := strings.Fields(line)
		day, err := schema.ParseDay(f[0])
		scriptError(ts, err)
		policy := schema.Policy{Type: schema.PolicyType(f[2]), Domain: f[1]}
		c := schema.Count{Day: day, Domain: f[1], Policy: policy.Text()}
		c.Success, err = strconv.ParseInt(f[3], 10, 64)
		scriptError(ts, err)
		c.Failure, err = strconv.ParseInt(f[4], 10, 64)
		scriptError(ts, err)
		if len(f) > 5 {
			d := schema.FailureDetails{ResultType: schema.ResultType(f[5])}
			c.Details = []schema.DetailsCount{{Details: d.Text(), Sessions: c.Failure}}
		}
		counts = append(counts, c)
	}
	scriptError(ts, store.Record(context.Background(), "script", nil, counts))
}

func send(ts *testscript.TestScript, _ bool, args []string) {
	for _, line := range lines(ts, args[0]) {
		scriptError(ts, sendDatagram(ts.MkAbs(args[1]), []byte(line)))
	}
}

func await(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.Join(args[1:], " ")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got, _ := os.ReadFile(ts.MkAbs(args[0]))
		if bytes.Contains(got, []byte(text)) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s does not say %q: %s", args[0], text, got)
		}
	}
}

func printArrived(ts *testscript.TestScript, _ bool, _ []string) {
	w := worldOf(ts)
	var out []string
	for _, r := range w.Reports() {
		to := strings.ReplaceAll(strings.Join(r.To, ","), w.URL(""), "$HTTPS")
		out = append(out, fmt.Sprintf("%s %s %d/%d signatures=%d problems=%q\n", to, r.Day, r.Sessions.Success, r.Sessions.Failure, len(r.Signatures), r.Problems))
	}
	slices.Sort(out)
	_, err := ts.Stdout().Write([]byte(strings.ReplaceAll(strings.Join(out, ""), ts.Getenv("YESTERDAY"), "@YESTERDAY@")))
	scriptError(ts, err)
}

func age(ts *testscript.TestScript, _ bool, args []string) {
	days, err := strconv.Atoi(args[1])
	scriptError(ts, err)
	scriptError(ts, ageStore(ts.MkAbs(args[0]), days))
}

func returned(ts *testscript.TestScript, _ bool, args []string) {
	var sender string
	for _, m := range worldOf(ts).SMTP.Received() {
		if slices.Contains(m.To, args[0]) {
			sender = m.Sender
		}
	}
	if sender == "" {
		ts.Fatalf("nothing was mailed to %s", args[0])
	}
	ts.Setenv("BOUNCES", sender)
	text := fmt.Sprintf("From MAILER-DAEMON Sun Nov 22 01:02:03 2026\nFrom: MAILER-DAEMON@example.net\nTo: <%s>\n"+
		"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nSorry.\n--b\nContent-Type: message/delivery-status\n\n"+
		"Reporting-MTA: dns; example.net\n\nFinal-Recipient: rfc822; %s\nAction: failed\nStatus: %s\n--b--\n", sender, args[0], args[1])
	scriptError(ts, os.WriteFile(ts.MkAbs(args[2]), []byte(text), 0o600))
}

func runSQL(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite3", ts.MkAbs(args[0]))
	scriptError(ts, err)
	defer db.Close()
	_, err = db.Exec(strings.Join(lines(ts, args[1]), "\n"))
	scriptError(ts, err)
}

// ageStore lets days pass for what was counted.
func ageStore(path string, days int) error {
	db, err := sql.Open("sqlite3", path+"?_busy_timeout=5000")
	if err != nil {
		return err
	}
	defer db.Close()
	for _, table := range []string{"tally", "tally_detail"} {
		if _, err := db.Exec(`UPDATE `+table+` SET day = day - ?`, days); err != nil {
			return err
		}
	}
	return nil
}

// runCommand runs the program with args, to its end.
func runCommand(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// syncBuffer is a buffer that may be read while it is written to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
