package web

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const testToken = "a-token-of-the-test"

// empty is a server of an empty store.
func empty(t testing.TB, change func(*Options)) *Server {
	t.Helper()
	o := options(fill(t, filling{today: testDay}), testNow)
	if change != nil {
		change(&o)
	}
	return newServer(t, o, testNow)
}

func TestCheckListen(t *testing.T) {
	good := func(address string, token bool) {
		t.Helper()
		if err := CheckListen(address, token); err != nil {
			t.Errorf("%s, token %t: %v", address, token, err)
		}
	}
	bad := func(address string, token bool) {
		t.Helper()
		if err := CheckListen(address, token); err == nil {
			t.Errorf("%s, token %t, is taken", address, token)
		}
	}
	good("127.0.0.1:8460", false)
	good("127.1.2.3:8460", false)
	good("[::1]:8460", false)
	good("[::ffff:127.0.0.1]:8460", false)
	good("localhost:8460", false)
	good("0.0.0.0:8460", true)
	good(":8460", true)
	good("mail.example.com:8460", true)
	bad("0.0.0.0:8460", false)
	bad("[::]:8460", false)
	bad(":8460", false)
	bad("192.0.2.1:8460", false)
	bad("localhost.example.com:8460", false)
	bad("mail.example.com:8460", false)
	bad("8460", true)
	bad("127.0.0.1", false)
}

// A stranger's page whose name leads to loopback is not answered.
func TestHost(t *testing.T) {
	s := empty(t, nil)
	for host, want := range map[string]int{
		"127.0.0.1:8460": 200, "localhost:8460": 200, "LOCALHOST": 200, "[::1]:8460": 200, "localhost.:8460": 200,
		"example.com": 421, "example.com:8460": 421, "localhost.example.com": 421, "192.0.2.1": 421, "": 421, "127.0.0.1.example.com": 421,
	} {
		for _, path := range []string{"/", "/metrics", "/healthz", "/assets/style.css"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Host = host
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s of %q: %d, want %d", path, host, w.Code, want)
			}
		}
	}
}

func TestMethods(t *testing.T) {
	s := empty(t, nil)
	for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "DELETE": 405, "OPTIONS": 405, "TRACE": 405, "X": 405} {
		r := httptest.NewRequest(method, "http://localhost/", nil)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d, want %d", method, w.Code, want)
		}
	}
	if w := get(s, "/login"); w.Code != http.StatusNotFound {
		t.Errorf("/login without a token: %d, want 404", w.Code)
	}
}

func TestHeaders(t *testing.T) {
	s := empty(t, nil)
	for _, path := range []string{"/", "/nothing", "/metrics", "/healthz", "/assets/charts.js", "/domains/x..y"} {
		h := get(s, path).Header()
		for name, want := range map[string]string{
			"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		if h.Get("Content-Type") == "" {
			t.Errorf("%s has no type", path)
		}
	}
	for _, word := range []string{"unsafe", "*", "http"} {
		if strings.Contains(policy, word) {
			t.Errorf("the policy says %q", word)
		}
	}
}

func TestToken(t *testing.T) {
	s := empty(t, func(o *Options) { o.Token = testToken })
	inside := []string{"/", "/domains", "/domains/" + name(0), "/domains/" + name(0) + "/2026-11-22/report.json", "/deliveries", "/metrics", "/nothing"}
	for _, path := range inside {
		if w := get(s, path); w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d, want 401", path, w.Code)
		}
		if w := get(s, path, "Accept", "text/html"); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/login" {
			t.Errorf("%s for a browser: %d to %q, want /login", path, w.Code, w.Header().Get("Location"))
		}
		for _, wrong := range []string{"Bearer wrong", "Bearer ", "Basic " + testToken, testToken, "Bearer " + testToken + "x", "Bearer " + testToken[1:]} {
			if w := get(s, path, "Authorization", wrong); w.Code != http.StatusUnauthorized {
				t.Errorf("%s with %q: %d, want 401", path, wrong, w.Code)
			}
		}
		if w := get(s, path+"?token="+testToken); w.Code != http.StatusUnauthorized {
			t.Errorf("%s with the token in the URL: %d, want 401", path, w.Code)
		}
	}
	if w := get(s, "/deliveries", "Authorization", "Bearer "+testToken); w.Code != http.StatusOK {
		t.Errorf("with the token: %d, want 200", w.Code)
	}
	if w := get(s, "/readyz"); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "problems") {
		t.Errorf("/readyz without the token: %d, %s", w.Code, w.Body)
	}
	if w := get(s, "/readyz", "Authorization", "Bearer "+testToken); !strings.Contains(w.Body.String(), "problems") {
		t.Errorf("/readyz with the token: %s", w.Body)
	}
	if _, err := New(Options{Token: "short"}); err == nil {
		t.Error("a short token is taken")
	}
}

func postLogin(s *Server, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "http://mail.example.com/login", strings.NewReader(url.Values{"token": {token}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestLogin(t *testing.T) {
	s := empty(t, func(o *Options) { o.Token = testToken })
	w := postLogin(s, testToken)
	cookies := w.Result().Cookies()
	if w.Code != http.StatusSeeOther || len(cookies) != 1 {
		t.Fatalf("%d with %d cookies", w.Code, len(cookies))
	}
	c := cookies[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || strings.Contains(c.Value, testToken) {
		t.Errorf("cookie %s", c)
	}
	session := func(value string) int { return get(s, "/deliveries", "Cookie", sessionCookie+"="+value).Code }
	if code := session(c.Value); code != http.StatusOK {
		t.Errorf("with the session: %d", code)
	}
	for _, forged := range []string{"", "x", c.Value[1:], "A" + c.Value[1:], c.Value + "AAAA", strings.ToLower(c.Value)} {
		if forged != c.Value && session(forged) != http.StatusUnauthorized {
			t.Errorf("the session %q is taken", forged)
		}
	}
	s.now = func() time.Time { return testNow.Add(sessionLength) }
	if code := session(c.Value); code != http.StatusUnauthorized {
		t.Errorf("after the session's end: %d", code)
	}
	s.now = func() time.Time { return testNow }
	s.o.Token = "another-token-of-the-test"
	if code := session(c.Value); code != http.StatusUnauthorized {
		t.Errorf("with a new token: %d", code)
	}
}

// A wrong token costs a second, in which nobody else may try.
func TestLoginSlow(t *testing.T) {
	s := empty(t, func(o *Options) { o.Token = testToken })
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		done := make(chan int)
		go func() { done <- postLogin(s, "wrong").Code }()
		synctest.Wait()
		if w := postLogin(s, "wrong"); w.Code != http.StatusTooManyRequests {
			t.Errorf("a second try at once: %d, want 429", w.Code)
		}
		if code := <-done; code != http.StatusForbidden {
			t.Errorf("a wrong token: %d, want 403", code)
		}
		if took := time.Since(begun); took != loginPause {
			t.Errorf("it took %s, want %s", took, loginPause)
		}
	})
	if w := postLogin(s, strings.Repeat("x", 1<<20)); w.Code == http.StatusSeeOther {
		t.Error("a token of 1 MiB is taken")
	}
}
