// Package lab is a small world for tests: a real Postfix of Debian that sends
// real mail to receivers of ours, each wrong in its own way, with a DNS and a
// certification authority of ours, on the loopback of a network namespace that
// has nothing else.
//
//	func TestExpired(t *testing.T) {
//		root := lab.Root(t, "trixie") // skips where there is none to be had
//		if !lab.InNamespace(t) {
//			return // this was the outside; the test ran inside
//		}
//		w := lab.New(t, root)
//		w.AddDomain(lab.Domain{
//			Name:     "example.com",
//			Receiver: lab.Expired,
//			Policy:   "secure match={mx} servername=hostname",
//			TLSRPT:   lab.Asks("mailto:tlsrpt@example.org"),
//		})
//		reports := w.AddDomain(lab.Domain{Name: "example.org"})
//		p := w.StartPostfix()
//		// bind a datagram socket to p.SocketPath() here
//		p.Inject("alice@example.net", []string{"bob@example.com"})
//		p.Wait(1)
//		// the event has arrived; reports.WaitMessages(1) is the report
//	}
//
// It needs Linux, root, the right to make namespaces and, the first time, an
// archive of Debian among the sources of apt. Where one of these is missing the
// test is skipped; where something else is wrong it fails. TLSRPT_TEST_POSTFIX=0
// skips at once; TLSRPT_TEST_CACHE says where roots are kept.
//
// The functions fail the test themselves and are called from its goroutine.
package lab
