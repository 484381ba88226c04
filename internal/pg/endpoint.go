package pg

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"dbbackup/internal/fault"
)

// Endpoint is one server as one role: a source or a target. It makes
// connections of this process and the connection strings of its children, so
// that both reach the same server the same way.
type Endpoint struct {
	Host     string // a name, an address or a socket folder
	Port     int
	User     string
	Database string // the database for questions about the whole cluster

	params  Params
	env     []string
	app     string
	retry   Retry
	version int  // server_version_num
	pooled  bool // a pooler stands in between
}

// Retry bounds how often an unavailable server is tried again.
type Retry struct {
	Attempts int           // further attempts after the first
	First    time.Duration // wait before the first further attempt; doubles, with jitter
	// Notify is told before each wait. Optional.
	Notify func(err error, wait time.Duration)
}

// Options of an Endpoint.
type Options struct {
	Params      Params
	Env         []string // complete environment for children, and for what Params leave open
	Application string   // application_name of every session, so that a DBA knows whose it is
	Retry       Retry
}

const defaultConnectTimeout = 10 * time.Second

// Resolve finds the server: of several hosts the first that answers is taken
// and kept, so that one run never reads from two. It connects once, to -d's
// database, else "postgres", else "template1".
func Resolve(ctx context.Context, o Options) (*Endpoint, error) {
	if err := o.Params.check(); err != nil {
		return nil, err
	}
	e := &Endpoint{params: o.Params.With(nil), env: o.Env, app: o.Application, retry: o.Retry}
	if err := e.refuseOpenPassfile(); err != nil {
		return nil, err
	}
	hosts, err := e.hosts()
	if err != nil {
		return nil, err
	}
	candidates := []string{o.Params["dbname"], lookup(o.Env, "PGDATABASE"), "postgres", "template1"}
	var first error
	for _, db := range candidates {
		if db == "" {
			continue
		}
		conn, err := e.retrying(ctx, func() (*Conn, error) { return e.connectFirst(ctx, hosts, db) })
		if err == nil {
			return e, errors.Join(e.settle(ctx, conn), conn.Close(ctx))
		}
		if first == nil {
			first = err
		}
		if !hasState(err, stateNoSuchDatabase) {
			return nil, err
		}
	}
	return nil, first
}

// settle keeps what the first session shows of the server.
func (e *Endpoint) settle(ctx context.Context, conn *Conn) (err error) {
	cfg := conn.c.Config()
	e.Host, e.Port, e.User, e.Database = cfg.Host, int(cfg.Port), cfg.User, conn.database
	e.params["host"], e.params["port"], e.params["user"] = e.Host, strconv.Itoa(e.Port), e.User
	if addr, ok := conn.c.PgConn().Conn().RemoteAddr().(*net.TCPAddr); ok && net.ParseIP(e.Host) == nil {
		e.params["hostaddr"] = addr.IP.String() // a name may stand for several servers
	}
	if _, isTLS := conn.c.PgConn().Conn().(*tls.Conn); !isTLS && cfg.TLSConfig != nil {
		// A server without TLS, which was preferred: pgx would ask for it first each time,
		// by a connection of its own. Should it come to have TLS, that is still tried.
		e.params["sslmode"] = "allow"
	}
	e.version = conn.version
	e.pooled, err = conn.pooled(ctx)
	return err
}

// Connect opens a session in a database and prepares it for reading. A server
// that is unavailable is tried again as Retry says.
func (e *Endpoint) Connect(ctx context.Context, database string) (*Conn, error) {
	return e.retrying(ctx, func() (*Conn, error) { return e.ConnectOnce(ctx, database) })
}

func (e *Endpoint) retrying(ctx context.Context, connect func() (*Conn, error)) (*Conn, error) {
	wait := e.retry.First
	for attempt := 0; ; attempt++ {
		conn, err := connect()
		if err != nil && ctx.Err() != nil { // a step that was under way calls it a lost connection
			return nil, context.Cause(ctx)
		}
		if err == nil || attempt >= e.retry.Attempts || !fault.Is(err, fault.Unavailable) {
			return conn, err
		}
		pause := wait/2 + rand.N(wait/2+1)
		if e.retry.Notify != nil {
			e.retry.Notify(err, pause)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
		wait *= 2
	}
}

// As is the endpoint with another application_name.
func (e *Endpoint) As(application string) *Endpoint {
	named := *e
	named.app = application
	return &named
}

// String names the server for messages.
func (e *Endpoint) String() string {
	return fmt.Sprintf("%s:%d as %s", e.Host, e.Port, e.User)
}

// Local reports whether the server runs on this host.
func (e *Endpoint) Local() bool {
	if strings.HasPrefix(e.Host, "/") || e.Host == "localhost" {
		return true
	}
	ip := net.ParseIP(e.Host)
	return ip != nil && ip.IsLoopback()
}

// ConnectOnce is Connect without trying again.
func (e *Endpoint) ConnectOnce(ctx context.Context, database string) (*Conn, error) {
	cfg, err := e.config(database)
	if err != nil {
		return nil, err
	}
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, connectError(ctx, cfg, database, err)
	}
	conn := &Conn{c: c, database: database}
	if err := conn.prepare(ctx); err != nil {
		return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	return conn, nil
}

// config is pgx's view of the parameters, of the environment and of the
// service and password files.
func (e *Endpoint) config(database string) (*pgx.ConnConfig, error) {
	params := e.params.With(Params{"dbname": database, "application_name": e.app})
	cfg, err := pgx.ParseConfig(params.conninfo(func(key string) bool { return knownKeywords[key] }))
	if err != nil {
		return nil, fault.New(fault.Usage, "check the connection options and the PG* environment variables",
			"connection options: %w", withoutConninfo(err))
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.RuntimeParams["client_encoding"] = "UTF8" // a role may say otherwise, and names are read
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	cfg.DialFunc = (&net.Dialer{Timeout: cfg.ConnectTimeout, KeepAliveConfig: keepAlive}).DialContext
	if addr := params["hostaddr"]; addr != "" {
		cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{addr}, nil }
	}
	return cfg, nil
}

// keepAlive bounds how long a vanished peer goes unnoticed to about 60 s.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// refuseOpenPassfile does what libpq does: a password file that others may
// read is not used. libpq ignores it with a warning that nobody sees in cron.
func (e *Endpoint) refuseOpenPassfile() error {
	path := e.params["passfile"]
	if path == "" {
		path = lookup(e.env, "PGPASSFILE")
	}
	if path == "" {
		path = filepath.Join(lookup(e.env, "HOME"), ".pgpass")
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("password file: %w", err)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return fault.New(fault.Precondition, "chmod 600 "+path,
			"password file %s can be read by others (mode %04o)", path, info.Mode().Perm())
	}
	return nil
}

func lookup(env []string, key string) string {
	value := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			value = v
		}
	}
	return value
}

// withoutConninfo drops everything but the cause of a pgconn.ParseConfigError,
// whose text quotes the connection string.
func withoutConninfo(err error) error {
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) && parse.Unwrap() != nil {
		return parse.Unwrap()
	}
	return errors.New("they cannot be understood")
}
