package web

import (
	"encoding/json"
	"net/http"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/health"
)

// healthz says whether the process should go on; readyz, whether all is well. A
// probe without the token learns that alone, and no reasons.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	s.probe(w, r, s.o.Monitor.Report(), s.o.Monitor.Alive())
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	report := s.o.Monitor.Report()
	s.probe(w, r, report, report.Ready())
}

// probeBody is the body of both.
type probeBody struct {
	Status string `json:"status"` // "ok" or "failing"
	*health.Report
}

func (s *Server) probe(w http.ResponseWriter, r *http.Request, report health.Report, ok bool) {
	body, code := probeBody{Status: "ok"}, http.StatusOK
	if !ok {
		body.Status, code = "failing", http.StatusServiceUnavailable
	}
	if s.known(r) {
		body.Report = &report
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(body) // whoever went away needs no answer
}
