package sftp

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"dbbackup/internal/fault"
	"dbbackup/internal/storeserver"
)

func TestLocate(t *testing.T) {
	tests := []struct{ text, user, address, path, name string }{
		{"sftp://me@host/abs/path", "me", "host:22", "/abs/path", "sftp://me@host/abs/path"},
		{"sftp://host/abs/", "local", "host:22", "/abs", "sftp://local@host/abs"},
		{"sftp://me@host:2222/~/rel/path", "me", "host:2222", "rel/path", "sftp://me@host:2222/~/rel/path"},
		{"sftp://me@host/~", "me", "host:22", ".", "sftp://me@host/~"},
		{"sftp://me@host/", "me", "host:22", "/", "sftp://me@host/"},
		{"sftp://me@[::1]/x%20y?connections=2&timeout=5s", "me", "[::1]:22", "/x y", "sftp://me@[::1]/x%20y"},
		{"sftp://me@[::1]:23/x", "me", "[::1]:23", "/x", "sftp://me@[::1]:23/x"},
	}
	for _, tt := range tests {
		u, err := url.Parse(tt.text)
		must(t, err)
		loc, err := locate(u, "local")
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if loc.user != tt.user || loc.address() != tt.address || loc.path != tt.path || loc.String() != tt.name {
			t.Errorf("%s: got %+v, %s", tt.text, loc, &loc)
		}
	}
}

func TestLocateRefuses(t *testing.T) {
	tests := map[string]string{
		"sftp://me:sesame@host/x":             "holds a password",
		"sftp://me:@host/x":                   "holds a password",
		"s3://host/x":                         "scheme",
		"sftp://me@host":                      "names no folder",
		"sftp:///x":                           "names no host",
		"sftp://me@host/a/../b":               "leads upwards",
		"sftp://me@host/~/../b":               "leads upwards",
		"sftp://me@host/x?host_key=ignore":    `"host_key"`,
		"sftp://me@host/x?connections=0":      "connections",
		"sftp://me@host/x?connections=many":   "connections",
		"sftp://me@host/x?timeout=1":          "timeout",
		"sftp://me@host/x#y":                  "fragment",
		"sftp://me@host/x?a=%zz":              "query",
		"sftp://me@host/x%00y":                "NUL",
		"sftp://me@host/x?timeout=5s&Other=1": `"Other"`,
	}
	for text, want := range tests {
		u, err := url.Parse(text)
		must(t, err)
		_, err = locate(u, "local")
		if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want kind Usage and %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "sesame") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
	u, err := url.Parse("sftp://host/x")
	must(t, err)
	if _, err := locate(u, ""); !fault.Is(err, fault.Usage) {
		t.Errorf("a URL without user: %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	from := func(values map[string]string) Options {
		return Environment(func(name string) string { return values[name] })
	}
	o := from(map[string]string{"HOME": "/h", "USER": "me", "SSH_AUTH_SOCK": "/sock"})
	if o.User != "me" || o.AgentSocket != "/sock" || len(o.IdentityFiles) != 0 || len(o.DefaultIdentities) != 3 ||
		!slices.Equal(o.KnownHosts, []string{"/h/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"}) {
		t.Errorf("the defaults are %+v", o)
	}
	o = from(map[string]string{"HOME": "/h", "DBBACKUP_SFTP_IDENTITY": "/a::/b", "DBBACKUP_SFTP_KNOWN_HOSTS": "/k",
		"DBBACKUP_SFTP_PASSWORD": "p", "DBBACKUP_SFTP_PASSWORD_FILE": "/p"})
	if !slices.Equal(o.IdentityFiles, []string{"/a", "/b"}) || len(o.DefaultIdentities) != 0 || !slices.Equal(o.KnownHosts, []string{"/k"}) ||
		o.Password != "p" || o.PasswordFile != "/p" {
		t.Errorf("got %+v", o)
	}
}

// opening returns what becomes of opening a store with changed options.
func opening(t *testing.T, server *storeserver.SSHD, change func(*Options)) error {
	t.Helper()
	o := options(server)
	change(&o)
	p, err := Open(t.Context(), server.URL(filepath.Join(t.TempDir(), "store")), o)
	switch {
	case err == nil:
		must(t, p.Close())
	case strings.Contains(err.Error(), "\n"):
		t.Errorf("one reason is told as several: %v", err)
	}
	return err
}

func TestHostKeys(t *testing.T) {
	server := storeserver.StartSSHD(t, "")
	other, err := ssh.NewPublicKey(newKey(t).Public())
	must(t, err)
	line := "[127.0.0.1]:" + server.Port + " " + string(ssh.MarshalAuthorizedKey(other))
	right, err := os.ReadFile(server.KnownHosts)
	must(t, err)
	_, key, _ := strings.Cut(string(right), " ")
	tests := []struct {
		name  string
		files []string
		text  string
		hint  string
	}{
		{"none", nil, "is in no known_hosts file", "ssh-keyscan -p " + server.Port},
		{"missing", []string{filepath.Join(t.TempDir(), "none")}, "is in no known_hosts file", "fingerprint"},
		{"changed", []string{newFile(t, line)}, "is not the one in", "ssh-keygen -R '[127.0.0.1]:" + server.Port},
		{"revoked", []string{newFile(t, "@revoked * "+key)}, "is revoked", "administrator"},
		{"authority", []string{newFile(t, "@cert-authority * "+string(ssh.MarshalAuthorizedKey(other)))}, "", ""},
		{"garbled", []string{newFile(t, "host ssh-ed25519 %%%")}, "known host keys", "mend the line"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := opening(t, server, func(o *Options) { o.KnownHosts = tt.files })
			if !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want kind Precondition and %q", err, tt.text)
			}
			wantHint(t, err, tt.hint)
		})
	}
	must(t, opening(t, server, func(o *Options) { o.KnownHosts = []string{newFile(t, "other.example "+key), server.KnownHosts} }))
}

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return key
}

func newIdentity(t *testing.T, key ed25519.PrivateKey, passphrase string) string {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	must(t, err)
	return newFile(t, string(pem.EncodeToMemory(block)))
}

func TestCredentials(t *testing.T) {
	server := storeserver.StartSSHD(t, "")
	text, err := os.ReadFile(server.Identity)
	must(t, err)
	raw, err := ssh.ParseRawPrivateKey(text)
	must(t, err)
	mine := *raw.(*ed25519.PrivateKey)
	locked := newIdentity(t, mine, "sesame")
	loose := newIdentity(t, mine, "")
	must(t, os.Chmod(loose, 0o644))
	socket := startAgent(t, mine)
	tests := []struct {
		name   string
		change func(*Options)
		hint   string // empty where it works
	}{
		{"key", func(*Options) {}, ""},
		{"default key", func(o *Options) {
			o.DefaultIdentities = []string{"/does/not/exist", locked, server.Identity}
			o.IdentityFiles = nil
		}, ""},
		{"agent", func(o *Options) { o.IdentityFiles, o.AgentSocket = nil, socket }, ""},
		{"encrypted key in the agent", func(o *Options) { o.IdentityFiles, o.AgentSocket = []string{locked}, socket }, ""},
		{"dead agent", func(o *Options) { o.AgentSocket = "/does/not/exist" }, ""},
		{"no key", func(o *Options) { o.IdentityFiles = nil }, "authorized_keys"},
		{"another key", func(o *Options) { o.IdentityFiles = []string{newIdentity(t, newKey(t), "")} }, "authorized_keys"},
		{"a user that the URL overrules", func(o *Options) { o.User = "nobody-of-that-name" }, ""},
		{"missing key", func(o *Options) { o.IdentityFiles = []string{"/does/not/exist"} }, "DBBACKUP_SFTP_IDENTITY"},
		{"encrypted key", func(o *Options) { o.IdentityFiles = []string{locked} }, "ssh-add"},
		{"key for all to read", func(o *Options) { o.IdentityFiles = []string{loose} }, "chmod 600"},
		{"no private key", func(o *Options) { o.IdentityFiles = []string{newFile(t, "ssh-ed25519 AAAA")} }, "not the public one"},
		{"password is refused", func(o *Options) { o.IdentityFiles, o.Password = nil, "sesame" }, "DBBACKUP_SFTP_PASSWORD"},
		{"empty password file", func(o *Options) { o.PasswordFile = newFile(t, "\n") }, "first line"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := opening(t, server, tt.change)
			if tt.hint == "" {
				must(t, err)
				return
			}
			if !fault.Is(err, fault.Precondition) {
				t.Errorf("got %v, want kind Precondition", err)
			}
			wantHint(t, err, tt.hint)
			if err != nil && strings.Contains(err.Error(), "sesame") {
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
}

func startAgent(t *testing.T, key ed25519.PrivateKey) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "agent") // the path of a socket must be short
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(folder)) })
	socket := filepath.Join(folder, "agent")
	l, err := net.Listen("unix", socket)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	keys := agent.NewKeyring()
	must(t, keys.Add(agent.AddedKey{PrivateKey: newKey(t)}))
	must(t, keys.Add(agent.AddedKey{PrivateKey: key}))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(keys, conn) }()
		}
	}()
	return socket
}

func TestOpenMissing(t *testing.T) {
	server := storeserver.StartSSHD(t, "")
	o := options(server)
	o.Create = false
	file := newFile(t, "")
	for _, path := range []string{filepath.Join(t.TempDir(), "none"), file} {
		if _, err := Open(t.Context(), server.URL(path), o); !fault.Is(err, fault.NotFound) {
			t.Errorf("open %s: got %v, want kind NotFound", path, err)
		}
	}
	o.Create = true
	if _, err := Open(t.Context(), server.URL(file), o); err == nil {
		t.Error("a file was opened as a store")
	}
	server.Kill()
	if _, err := Open(t.Context(), server.URL(file), o); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no server: got %v, want kind Unavailable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, server.URL(file), o); err == nil {
		t.Error("opened under an ended context")
	}
}

func TestLoginFolder(t *testing.T) {
	folder := t.TempDir()
	server := storeserver.StartSSHD(t, "internal-sftp -d "+folder)
	s := open(t, server, "/~/below/it").(roomy)
	must(t, write(t, s, "object", "x"))
	wantTree(t, folder, "below", "below/it", "below/it/object")
}
