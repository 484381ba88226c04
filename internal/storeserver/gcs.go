package storeserver

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// GCS is a running fake-gcs-server. It asks for no credentials.
type GCS struct {
	Endpoint string // http://127.0.0.1:PORT
}

// StartGCS runs a server of Google Cloud Storage's protocol until the test is
// over.
func StartGCS(tb testing.TB) *GCS {
	tb.Helper()
	// In memory, because as files it keeps the folders of objects that are gone,
	// and takes no object of their name.
	_, port := start(tb, program(tb, "fake-gcs-server"), tb.TempDir(), func(port int) []string {
		return []string{"-scheme", "http", "-host", "127.0.0.1", "-port", strconv.Itoa(port), "-public-host", address(port),
			"-backend", "memory", "-log-level", "error"}
	})
	return &GCS{Endpoint: "http://" + address(port)}
}

// Bucket makes an empty bucket.
func (s *GCS) Bucket(tb testing.TB, name string) {
	tb.Helper()
	body := strings.NewReader(fmt.Sprintf(`{"name":%q}`, name))
	request, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, s.Endpoint+"/storage/v1/b?project=test", body)
	if err != nil {
		tb.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		tb.Fatalf("make bucket %s: %s", name, answer.Status)
	}
}
