package storeserver

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

// SSHD is an OpenSSH server with SFTP on the loopback, for one test: with a
// configuration, a host key and a user's key of its own. It runs as the user
// that runs the test, and lets in that one.
type SSHD struct {
	Port       string
	User       string
	Identity   string // the private key that opens it
	KnownHosts string // a file with its host key

	binary string
	folder string
	port   int
	daemon *process
}

// StartSSHD starts a server that ends with the test. subsystem is what serves
// SFTP; "" is OpenSSH's own. Without OpenSSH the test is skipped, and fails
// under CI.
func StartSSHD(tb testing.TB, subsystem string) *SSHD {
	tb.Helper()
	s := &SSHD{binary: findSSHD(tb), folder: tb.TempDir()}
	var err error
	if s.port, err = freePort(); err != nil {
		tb.Fatal(err)
	}
	s.Port = strconv.Itoa(s.port)
	me, err := user.Current()
	if err != nil {
		tb.Fatal(err)
	}
	s.User = me.Username
	if me.Uid == "0" { // where privileges are separated; a service makes it otherwise
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	if subsystem == "" {
		subsystem = "internal-sftp"
	}
	if err := s.configure(subsystem); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Kill)
	s.Start(tb)
	return s
}

func findSSHD(tb testing.TB) string {
	tb.Helper()
	for _, name := range []string{"sshd", "/usr/sbin/sshd", "/usr/local/sbin/sshd"} {
		if found, err := exec.LookPath(name); err == nil {
			if found, err = filepath.Abs(found); err == nil { // sshd insists on an absolute path
				return found
			}
		}
	}
	if os.Getenv("CI") != "" {
		tb.Fatal("sshd is not installed: apt-get install --no-install-recommends openssh-server")
	}
	tb.Skip("sshd is not installed (apt-get install --no-install-recommends openssh-server)")
	return ""
}

func (s *SSHD) configure(subsystem string) error {
	host, err := s.newKey("host")
	if err != nil {
		return err
	}
	mine, err := s.newKey("user")
	if err != nil {
		return err
	}
	s.Identity = filepath.Join(s.folder, "user")
	s.KnownHosts = filepath.Join(s.folder, "known_hosts")
	config := strings.Join([]string{
		"Port " + s.Port,
		"ListenAddress 127.0.0.1",
		"HostKey " + filepath.Join(s.folder, "host"),
		"AuthorizedKeysFile " + filepath.Join(s.folder, "authorized_keys"),
		"PidFile none",
		"StrictModes no",
		"UsePAM no",
		"PasswordAuthentication no",
		"PermitRootLogin prohibit-password",
		"Subsystem sftp " + subsystem,
	}, "\n")
	for name, text := range map[string]string{
		"sshd_config":     config + "\n",
		"authorized_keys": string(ssh.MarshalAuthorizedKey(mine)),
		"known_hosts":     fmt.Sprintf("[127.0.0.1]:%s %s", s.Port, ssh.MarshalAuthorizedKey(host)),
	} {
		if err := os.WriteFile(filepath.Join(s.folder, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// newKey writes a private key.
func (s *SSHD) newKey(name string) (ssh.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, name)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(s.folder, name), pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	return ssh.NewPublicKey(public)
}

// Start starts the server, also after Kill, and waits until it listens.
func (s *SSHD) Start(tb testing.TB) {
	tb.Helper()
	daemon, err := run(s.binary, s.folder, []string{"-D", "-e", "-f", filepath.Join(s.folder, "sshd_config")})
	if err != nil {
		tb.Fatal(err)
	}
	s.daemon = daemon
	if err := daemon.await(s.port); err != nil {
		tb.Fatalf("start sshd: %v", err)
	}
}

// Addr is where the server listens.
func (s *SSHD) Addr() string { return address(s.port) }

// URL is that of a folder on the server.
func (s *SSHD) URL(folder string) *url.URL {
	return &url.URL{Scheme: "sftp", User: url.User(s.User), Host: s.Addr(), Path: folder}
}

// Kill ends the server and all its sessions without a word to anybody.
func (s *SSHD) Kill() {
	if s.daemon == nil {
		return
	}
	for _, pid := range s.Processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL) // one that ended meanwhile is gone, too
	}
	s.daemon.stop()
	s.daemon = nil
}

// Processes returns the server's process and those of its sessions, parents
// first.
func (s *SSHD) Processes() []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is right
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // ended
		}
		var pid, parent int
		var state string
		number, rest, _ := bytes.Cut(text, []byte(" ("))
		rest = rest[bytes.LastIndexByte(rest, ')')+1:] // a process may be named as it likes
		if _, err := fmt.Sscan(string(number)+string(rest), &pid, &state, &parent); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	pids := []int{s.daemon.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	return pids
}
