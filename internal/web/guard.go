package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

const (
	minToken      = 16 // characters
	sessionCookie = "tlsrpt_session"
	sessionLength = 12 * time.Hour
	loginPause    = time.Second // that a wrong token costs everybody who tries one
)

// CheckListen refuses an address that others than this host can reach, unless a
// token is asked for.
func CheckListen(address string, token bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not an address such as \"127.0.0.1:8460\"", address)
	}
	if !token && !loopback(host) {
		return fmt.Errorf("%q can be reached from other hosts: that needs web.token_file", address)
	}
	return nil
}

// loopback reports whether host is this one, by name or address.
func loopback(host string) bool {
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.Unmap().IsLoopback() || strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// policy lets a page use what came from here and nothing else, and no text of a
// page become a program or a style.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if !s.hostAllowed(r.Host) {
		// A page of a stranger whose name leads to this address (DNS rebinding).
		http.Error(w, "this host name is not ours; use localhost or 127.0.0.1", http.StatusMisdirectedRequest)
		return
	}
	login := r.URL.Path == "/login" && s.o.Token != ""
	if r.Method != http.MethodGet && r.Method != http.MethodHead && !(login && r.Method == http.MethodPost) {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD are answered", http.StatusMethodNotAllowed)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// hostAllowed reports whether a request was meant for us. With a token the name
// does not matter: a browser sends the cookie of another name to nobody else.
func (s *Server) hostAllowed(host string) bool {
	if s.o.Token != "" {
		return true
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return loopback(host)
}

// inside lets those through to next who may see it.
func (s *Server) inside(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.known(r):
			next.ServeHTTP(w, r)
		case strings.Contains(r.Header.Get("Accept"), "text/html"):
			http.Redirect(w, r, "/login", http.StatusSeeOther)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="tlsrpt-agent"`)
			http.Error(w, "a token is needed: Authorization: Bearer", http.StatusUnauthorized)
		}
	})
}

// known reports whether a request comes with the token or a session.
func (s *Server) known(r *http.Request) bool {
	if s.o.Token == "" {
		return true
	}
	if given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return s.isToken(given)
	}
	c, err := r.Cookie(sessionCookie)
	return err == nil && s.isSession(c.Value)
}

// isToken compares sums, so that not even the length takes part.
func (s *Server) isToken(given string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(s.o.Token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// session is a cookie: when it ends, and proof that we said so. It needs no
// memory, and a new token ends it.
func (s *Server) session(end time.Time) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(end.Unix()))
	return base64.RawURLEncoding.EncodeToString(append(b, s.sign(b)...))
}

func (s *Server) sign(b []byte) []byte {
	mac := hmac.New(sha256.New, []byte(s.o.Token))
	mac.Write([]byte("tlsrpt-agent session\x00"))
	mac.Write(b)
	return mac.Sum(nil)
}

func (s *Server) isSession(cookie string) bool {
	b, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil || len(b) != 8+sha256.Size || !hmac.Equal(b[8:], s.sign(b[:8])) {
		return false
	}
	return s.now().Before(time.Unix(int64(binary.BigEndian.Uint64(b)), 0))
}

func (s *Server) loginForm(w http.ResponseWriter, r *http.Request) {
	if err := s.render(w, r, "login", "Log in", "", false); err != nil {
		s.fail(w, r, err)
	}
}

// login gives a session for the token. The form is the one thing that is posted:
// a token in a URL would end up in logs and histories.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	select {
	case s.logins <- struct{}{}:
		defer func() { <-s.logins }()
	default:
		http.Error(w, "somebody else tries just now", http.StatusTooManyRequests)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	if !s.isToken(strings.TrimSpace(r.PostFormValue("token"))) {
		s.o.Logger.Warn("a wrong token was given", "from", r.RemoteAddr)
		select {
		case <-time.After(loginPause):
		case <-r.Context().Done():
		}
		body, err := s.execute("login", s.frame(r, "Log in", "", true))
		if err != nil {
			s.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusForbidden)
		w.Write(body)
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: s.session(s.now().Add(sessionLength)), Path: "/",
		MaxAge: int(sessionLength / time.Second), HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
	})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
