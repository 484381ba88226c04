package storeserver

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// Azure is a running azurite. Account and Key are those that it documents.
type Azure struct {
	Endpoint string // http://127.0.0.1:PORT/ACCOUNT
	Account  string
	Key      string
}

// StartAzure runs a server of Azure Blob Storage's protocol until the test is
// over.
func StartAzure(tb testing.TB) *Azure {
	tb.Helper()
	path, dir := program(tb, "azurite-blob"), tb.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		tb.Fatal(err)
	}
	// Loose, because it refuses checksums of what is sent otherwise. It ignores
	// them then.
	_, port := start(tb, path, dir, func(port int) []string {
		return []string{"--silent", "--disableTelemetry", "--skipApiVersionCheck", "--loose", "--location", data,
			"--blobHost", "127.0.0.1", "--blobPort", strconv.Itoa(port)}
	})
	const account = "devstoreaccount1"
	return &Azure{
		Endpoint: "http://" + address(port) + "/" + account, Account: account,
		Key: "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
	}
}

// Getenv looks up the variables that lead to the account.
func (s *Azure) Getenv(name string) string {
	return map[string]string{"AZURE_STORAGE_ACCOUNT": s.Account, "AZURE_STORAGE_KEY": s.Key}[name]
}

// Container makes an empty container.
func (s *Azure) Container(tb testing.TB, name string) {
	tb.Helper()
	credential, err := blob.NewSharedKeyCredential(s.Account, s.Key)
	if err != nil {
		tb.Fatal(err)
	}
	client, err := container.NewClientWithSharedKeyCredential(s.Endpoint+"/"+name, credential, nil)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := client.Create(tb.Context(), nil); err != nil {
		tb.Fatal(err)
	}
}
