package storeserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// Toxiproxy is a running toxiproxy-server with one proxy, which breaks the
// connections that go through it below HTTP.
type Toxiproxy struct {
	Endpoint string // http://127.0.0.1:PORT, in the place of the server's

	api string
}

// StartToxiproxy runs a proxy in front of the server at an endpoint until the test
// is over. It passes everything on until it is told otherwise.
func StartToxiproxy(tb testing.TB, endpoint string) *Toxiproxy {
	tb.Helper()
	_, port := start(tb, program(tb, "toxiproxy-server"), tb.TempDir(), func(port int) []string {
		return []string{"-host", "127.0.0.1", "-port", strconv.Itoa(port), "-seed", "42"}
	})
	p := &Toxiproxy{api: "http://" + address(port) + "/proxies"}
	var made struct {
		Listen string `json:"listen"`
	}
	p.call(tb, http.MethodPost, "", map[string]any{
		"name": "store", "listen": "127.0.0.1:0", "upstream": strings.TrimPrefix(endpoint, "http://"), "enabled": true,
	}, &made)
	p.Endpoint = "http://" + made.Listen
	return p
}

// Add makes a toxic work on that share of the connections, those that are there
// too. Its name is its kind; see Toxiproxy's manual for the attributes. Stream is
// upstream, to the server, or downstream.
func (p *Toxiproxy) Add(tb testing.TB, kind, stream string, share float64, attributes map[string]int) {
	tb.Helper()
	p.call(tb, http.MethodPost, "/store/toxics",
		map[string]any{"name": kind, "type": kind, "stream": stream, "toxicity": share, "attributes": attributes}, nil)
}

// Remove ends what Add began.
func (p *Toxiproxy) Remove(tb testing.TB, kind string) {
	tb.Helper()
	p.call(tb, http.MethodDelete, "/store/toxics/"+kind, nil, nil)
}

func (p *Toxiproxy) call(tb testing.TB, method, path string, body, answer any) {
	tb.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		tb.Fatal(err)
	}
	request, err := http.NewRequestWithContext(tb.Context(), method, p.api+path, bytes.NewReader(text))
	if err != nil {
		tb.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s", response.Status, got)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(got, answer)
	}
	if err != nil {
		tb.Fatalf("toxiproxy: %s %s: %v", method, path, err)
	}
}
