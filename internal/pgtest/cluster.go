package pgtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// Cluster is a running server and what is needed to connect to it.
type Cluster struct {
	Host       string // an address; the server also listens in Socket
	Port       int
	Socket     string // the folder that holds the Unix socket
	User       string // the bootstrap superuser
	Password   string
	BinDir     string // the binaries of the server's own version
	DataDir    string
	VersionNum int    // server_version_num, e.g. 150018
	CAFile     string // the authority that signed the server's certificate; empty without WithTLS

	dir       string
	owner     owner
	lock      *os.File    // held while this process owns dir; nil when detached
	detached  bool        // the server is not this process's child
	server    *postmaster // nil while stopped, and when detached
	databases atomic.Int64
}

// startAttempts bounds how many ports are tried: one that was free may be taken
// by somebody else before the server binds it.
const startAttempts = 5

// Start runs a cluster of the test's own until the test is over.
func Start(tb testing.TB, opts ...Option) *Cluster {
	tb.Helper()
	BinDir(tb, apply(opts).major)
	c, err := Open(opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Errorf("close cluster: %v", err)
		}
	})
	return c
}

// Open makes a cluster and runs it until Close. It returns when the server
// accepts connections.
func Open(opts ...Option) (*Cluster, error) {
	cfg := apply(opts)
	bin, err := FindBinDir(cfg.major)
	if err != nil {
		return nil, err
	}
	c, err := newCluster(cfg, bin)
	if err != nil {
		return nil, err
	}
	if err := c.build(cfg); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// build makes the data and starts the server.
func (c *Cluster) build(cfg config) error {
	password := c.Password
	var err error
	if cfg.template == nil {
		err = c.initdb(cfg.initdbArgs)
	} else {
		err = c.copyData(cfg.template)
	}
	if err != nil {
		return err
	}
	if err := c.configure(cfg); err != nil {
		return err
	}
	if err := c.startOnFreePort(cfg); err != nil {
		return err
	}
	if cfg.template == nil {
		return nil
	}
	return c.takePassword(password)
}

// Close stops the server at once and removes the cluster's folder. Closing
// twice is no error.
func (c *Cluster) Close() error {
	err := c.stop(immediate)
	if c.lock != nil {
		err = errors.Join(err, c.lock.Close())
		c.lock = nil
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// Log returns the last lines of the server's log.
func (c *Cluster) Log() string {
	const keep = 4 << 10
	text, err := os.ReadFile(c.logFile())
	if err != nil {
		return err.Error()
	}
	if len(text) > keep {
		text = text[len(text)-keep:]
	}
	return string(text)
}

// MakeDir makes a folder that the server may write to, next to its data: a
// place for a tablespace or an archive. It is removed with the cluster.
func (c *Cluster) MakeDir(name string) (string, error) {
	dir := filepath.Join(c.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, c.owner.chown(dir)
}

func apply(opts []Option) config {
	var cfg config
	for _, o := range opts {
		o(&cfg)
	}
	return cfg
}

// newCluster makes the cluster's folder and names what will live in it.
func newCluster(cfg config, bin string) (*Cluster, error) {
	owner, err := serverOwner()
	if err != nil {
		return nil, err
	}
	c := &Cluster{Host: "127.0.0.1", User: "postgres", Password: cfg.password, BinDir: bin, owner: owner, detached: cfg.detached}
	if c.Password == "" {
		c.Password = rand.Text()
	}
	if cfg.detached {
		if c.dir, err = filepath.Abs(cfg.dir); err != nil {
			return nil, err
		}
		if err := os.Mkdir(c.dir, 0o700); err != nil {
			return nil, err
		}
	} else if c.dir, c.lock, err = makeTempDir(); err != nil {
		return nil, err
	}
	c.Socket, c.DataDir = c.dir, filepath.Join(c.dir, "data")
	if err := owner.chown(c.dir); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// initdb makes the data.
func (c *Cluster) initdb(more []string) error {
	secret, err := verifier(c.Password)
	if err != nil {
		return err
	}
	if short, err := c.takesShortPasswords(); err != nil {
		return err
	} else if short {
		secret = c.Password
	}
	pwfile := filepath.Join(c.dir, "password")
	if err := c.owner.writeFile(pwfile, secret+"\n"); err != nil {
		return err
	}
	args := []string{
		"--pgdata=" + c.DataDir, "--username=" + c.User, "--pwfile=" + pwfile, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C.UTF-8", "--no-sync",
	}
	if err := c.runTool("initdb", append(args, more...)...); err != nil {
		return err
	}
	return os.Remove(pwfile)
}

// takesShortPasswords: before version 14 initdb reads 99 bytes of a password's file
// (get_su_pwd in initdb.c), and a verifier has more.
func (c *Cluster) takesShortPasswords() (bool, error) {
	out, err := exec.Command(filepath.Join(c.BinDir, "initdb"), "--version").Output() //nolint:gosec // the server under test
	if err != nil {
		return false, fmt.Errorf("version of initdb: %w", err)
	}
	var major int
	fields := strings.Fields(string(out)) // initdb (PostgreSQL) 15.18 ...
	if len(fields) < 3 {
		return false, fmt.Errorf("version of initdb: %q", out)
	}
	if _, err := fmt.Sscanf(fields[2], "%d", &major); err != nil {
		return false, fmt.Errorf("version of initdb: %q: %w", out, err)
	}
	return major < 14, nil
}

// configure writes all configuration but the port.
func (c *Cluster) configure(cfg config) error {
	settings := cfg.settings
	if cfg.tlsHosts != nil {
		lines, err := c.writeCertificates(cfg.tlsHosts)
		if err != nil {
			return err
		}
		settings = append(lines, settings...)
	}
	if err := c.appendConfig("include 'pgtest.conf'", strings.Join(settings, "\n")); err != nil {
		return err
	}
	hba := strings.Join(append(cfg.hba, accessRules...), "\n") + "\n"
	return c.owner.writeFile(filepath.Join(c.DataDir, "pg_hba.conf"), hba)
}

// accessRules ask everybody for a password, replication included.
var accessRules = []string{
	"local all,replication all scram-sha-256",
	"host all,replication all 127.0.0.1/32 scram-sha-256",
	"host all,replication all ::1/128 scram-sha-256",
}

// baseSettings hold for every cluster; options override them.
var baseSettings = []string{
	settingLine("listen_addresses", "127.0.0.1"),
	settingLine("fsync", "off"),
	settingLine("full_page_writes", "off"),
	settingLine("shared_buffers", "32MB"),
	settingLine("max_wal_size", "256MB"),
	settingLine("timezone", "UTC"),
	settingLine("log_timezone", "UTC"),
	settingLine("lc_messages", "C"),
	settingLine("password_encryption", "scram-sha-256"),
	settingLine("wal_retrieve_retry_interval", "100ms"),
}

// writePort writes the part of the configuration that a new port changes.
func (c *Cluster) writePort() error {
	lines := append([]string{
		fmt.Sprintf("port = %d", c.Port),
		settingLine("unix_socket_directories", c.Socket),
	}, baseSettings...)
	return c.owner.writeFile(filepath.Join(c.DataDir, "pgtest.conf"), strings.Join(lines, "\n")+"\n")
}

// appendConfig adds lines at the end of postgresql.conf, where they win.
func (c *Cluster) appendConfig(lines ...string) error {
	f, err := os.OpenFile(filepath.Join(c.DataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
	return errors.Join(err, f.Close())
}

// startOnFreePort starts the server, on another port when one was taken.
func (c *Cluster) startOnFreePort(cfg config) error {
	var err error
	for range startAttempts {
		if c.Port = cfg.port; c.Port == 0 {
			if c.Port, err = freePort(); err != nil {
				return err
			}
		}
		if err = errors.Join(c.writePort(), c.start(cfg.detached)); err == nil {
			return c.readVersion()
		}
	}
	return fmt.Errorf("start server, %d attempts: %w", startAttempts, err)
}

// runTool runs one of the server's programs to its end, as the server's user.
func (c *Cluster) runTool(name string, args ...string) error {
	cmd := exec.Command(filepath.Join(c.BinDir, name), args...)
	cmd.Dir = c.dir
	cmd.Env = append(cleanEnv(), "PGPASSWORD="+c.Password)
	cmd.SysProcAttr = c.owner.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", name, err, out)
	}
	return nil
}

func (c *Cluster) logFile() string { return filepath.Join(c.dir, "log") }
