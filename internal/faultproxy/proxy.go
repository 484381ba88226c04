package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
)

// Kind is what goes wrong.
type Kind string

const (
	// Status answers with Fault.Status and Fault.Body, and asks the server nothing.
	Status Kind = "status"
	// Reset ends the connection before the server hears of the request.
	Reset Kind = "reset"
	// Hang holds the request back until whoever sent it gives up. The server never
	// hears of it.
	Hang Kind = "hang"
	// LostAnswer lets the server do what it is asked, then ends the connection.
	LostAnswer Kind = "lost answer"
	// Cut ends the connection in the middle of the answer's body.
	Cut Kind = "cut"
	// Short answers with half of the body as if it were all of it.
	Short Kind = "short"
	// FlipUp changes one bit of the request's body.
	FlipUp Kind = "flip up"
	// FlipDown changes one bit of the answer's body.
	FlipDown Kind = "flip down"
)

// Fault happens to some requests.
type Fault struct {
	Kind   Kind
	Match  func(*http.Request) bool // nil: every request
	Every  int                      // of the requests that match, each of that number; 0 means all
	Rate   float64                  // of the requests that match, by the seed; 0 means all
	After  int                      // so many that match pass before
	Times  int                      // at most so often; 0 means without end
	Status int
	Body   string // of a Status; XML in the form of S3's errors if it begins with <

	seen, fired int
}

// Proxy is a running proxy. Its faults may be changed while it runs.
type Proxy struct {
	URL string // of the proxy, in the place of the server's

	target string // host and port
	client *http.Transport

	mu     sync.Mutex
	random *rand.Rand
	faults []*Fault
	log    []string
}

// Start runs a proxy in front of the HTTP server at a host and port until the
// test is over. The Host header passes unchanged: signatures are made of it.
func Start(tb testing.TB, target string, seed uint64) *Proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{
		URL: "http://" + listener.Addr().String(), target: target,
		client: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
		random: rand.New(rand.NewPCG(seed, seed)), //nolint:gosec // a test must come out the same again
	}
	server := &http.Server{Handler: p} //nolint:gosec // it serves one test
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			tb.Error(err)
		}
	})
	tb.Cleanup(func() {
		if err := server.Close(); err != nil {
			tb.Error(err)
		}
		serving.Wait()
		p.client.CloseIdleConnections()
	})
	return p
}

// Set replaces the faults. Of several that match a request the first one that
// is due happens.
func (p *Proxy) Set(faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults, p.log = nil, nil
	for _, f := range faults {
		p.faults = append(p.faults, &f)
	}
}

// Fired returns how often each fault happened, in the order of Set.
func (p *Proxy) Fired() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var fired []int
	for _, f := range p.faults {
		fired = append(fired, f.fired)
	}
	return fired
}

// Requests returns the requests since Set, as METHOD PATH?QUERY.
func (p *Proxy) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.log...)
}

// WantFired fails the test for each fault that never happened.
func (p *Proxy) WantFired(tb testing.TB) {
	tb.Helper()
	for i, n := range p.Fired() {
		if n == 0 {
			tb.Errorf("fault %d (%s) never happened: the test proves nothing", i, p.faults[i].Kind)
		}
	}
}

// pick decides which fault happens to a request, if any, and draws a number for
// where in the body.
func (p *Proxy) pick(r *http.Request) (fault Fault, where uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, r.Method+" "+r.URL.RequestURI())
	for _, f := range p.faults {
		if f.Match != nil && !f.Match(r) || f.Times > 0 && f.fired >= f.Times {
			continue
		}
		if f.seen++; f.seen <= f.After || f.Every > 0 && f.seen%f.Every != 0 || f.Rate > 0 && p.random.Float64() >= f.Rate {
			continue
		}
		f.fired++
		return *f, p.random.Uint64(), true
	}
	return Fault{}, 0, false
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault, where, ok := p.pick(r)
	if !ok {
		p.pass(w, r, r.Body)
		return
	}
	switch fault.Kind {
	case Status:
		_, _ = io.Copy(io.Discard, r.Body) // a client that still sends does not read
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(fault.Status)
		_, _ = io.WriteString(w, fault.Body)
	case Reset:
		reset(w)
	case Hang:
		_, _ = io.Copy(io.Discard, r.Body) // only then the end of the connection is noticed
		<-r.Context().Done()
	case LostAnswer:
		if answer, err := p.ask(r, r.Body); err == nil {
			_, _ = io.Copy(io.Discard, answer.Body)
			_ = answer.Body.Close()
		}
		reset(w)
	case FlipUp:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			reset(w)
			return
		}
		flip(body, where)
		p.pass(w, r, bytes.NewReader(body))
	default:
		p.damage(w, r, fault.Kind, where)
	}
}

// flip changes one bit.
func flip(body []byte, where uint64) {
	if n := uint64(len(body)); n > 0 {
		body[where%n] ^= 1 << (where >> 32 % 8)
	}
}

// ask sends the request on.
func (p *Proxy) ask(r *http.Request, body io.Reader) (*http.Response, error) {
	on := r.Clone(context.WithoutCancel(r.Context())) // the server finishes what it began
	on.URL.Scheme, on.URL.Host = "http", p.target
	on.RequestURI = ""
	on.Body = io.NopCloser(body)
	if r.ContentLength == 0 {
		on.Body = http.NoBody
	}
	return p.client.RoundTrip(on)
}

func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, body io.Reader) {
	answer, err := p.ask(r, body)
	if err != nil {
		reset(w)
		return
	}
	defer answer.Body.Close()
	header(w, answer)
	if _, err := io.Copy(w, answer.Body); err != nil {
		reset(w)
	}
}

func header(w http.ResponseWriter, answer *http.Response) {
	for name, values := range answer.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.StatusCode)
}

// damage breaks the answer's body. Answers without one pass.
func (p *Proxy) damage(w http.ResponseWriter, r *http.Request, kind Kind, where uint64) {
	answer, err := p.ask(r, r.Body)
	if err != nil {
		reset(w)
		return
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		reset(w)
		return
	}
	switch kind {
	case FlipDown:
		flip(body, where)
	case Short:
		body = body[:len(body)/2]
		answer.Header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	if kind != Cut {
		header(w, answer)
		_, _ = w.Write(body)
		return
	}
	answer.Header.Set("Content-Length", strconv.Itoa(len(body)))
	header(w, answer)
	_, _ = w.Write(body[:len(body)/2])
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	reset(w)
}

// reset ends the connection so that the other side sees it broken.
func reset(w http.ResponseWriter) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // reset, not end
	}
	_ = conn.Close()
}

// S3Error is the body of an error in S3's form.
func S3Error(code string) string {
	return fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>by the test</Message></Error>`, code)
}
