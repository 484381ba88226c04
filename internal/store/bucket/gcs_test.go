package bucket

import (
	"fmt"
	"net/url"
	"testing"

	"dbbackup/internal/store"
	"dbbackup/internal/store/storetest"
	"dbbackup/internal/storeserver"
)

func newGCS(t *testing.T, server *storeserver.GCS, prefix string) *url.URL {
	t.Helper()
	name := fmt.Sprintf("test-%d", buckets.Add(1))
	server.Bucket(t, name)
	u, err := url.Parse("gs://" + name + "/" + prefix + "?endpoint=" + url.QueryEscape(server.Endpoint))
	must(t, err)
	return u
}

func TestGCS(t *testing.T) {
	server := storeserver.StartGCS(t)
	storetest.Run(t, func(t *testing.T) store.Store {
		return openTest(t, newGCS(t, server, "backups/db1"), testOptions())
	})
}

func TestGCSParts(t *testing.T) {
	server := storeserver.StartGCS(t)
	testParts(t, openTest(t, newGCS(t, server, "db1"), testOptions()), chunkBytes)
}
