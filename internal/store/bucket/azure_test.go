package bucket

import (
	"fmt"
	"net/url"
	"testing"

	"dbbackup/internal/store"
	"dbbackup/internal/store/storetest"
	"dbbackup/internal/storeserver"
)

func newAzure(t *testing.T, server *storeserver.Azure, prefix string) *url.URL {
	t.Helper()
	name := fmt.Sprintf("test-%d", buckets.Add(1))
	server.Container(t, name)
	u, err := url.Parse("azblob://" + name + "/" + prefix + "?endpoint=" + url.QueryEscape(server.Endpoint))
	must(t, err)
	return u
}

func azureOptions(server *storeserver.Azure) Options {
	options := testOptions()
	options.Getenv = server.Getenv
	options.PartBytes = 1 << 20
	return options
}

func TestAzure(t *testing.T) {
	server := storeserver.StartAzure(t)
	storetest.Run(t, func(t *testing.T) store.Store {
		return openTest(t, newAzure(t, server, "backups/db1"), azureOptions(server))
	})
}

func TestAzureParts(t *testing.T) {
	server := storeserver.StartAzure(t)
	testParts(t, openTest(t, newAzure(t, server, "db1"), azureOptions(server)), 1<<20)
}
