package pg

import (
	"context"
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

	params Params
	env    []string
	app    string
	retry  Retry
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
	candidates := []string{o.Params["dbname"], lookup(o.Env, "PGDATABASE"), "postgres", "template1"}
	var first error
	for _, db := range candidates {
		if db == "" {
			continue
		}
		conn, err := e.Connect(ctx, db)
		if err == nil {
			e.Database = db
			e.pin(conn)
			return e, conn.Close(ctx)
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

// pin fixes host, port and user to those of a connection that worked.
func (e *Endpoint) pin(conn *Conn) {
	cfg := conn.c.Config()
	e.Host, e.Port, e.User = cfg.Host, int(cfg.Port), cfg.User
	if multi := strings.Contains(e.params["host"], ","); multi {
		if host, port, err := net.SplitHostPort(conn.c.PgConn().Conn().RemoteAddr().String()); err == nil {
			e.Host = host
			e.Port, _ = strconv.Atoi(port)
		}
		delete(e.params, "hostaddr")
	}
	e.params["host"], e.params["port"], e.params["user"] = e.Host, strconv.Itoa(e.Port), e.User
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

// Connect opens a session in a database and prepares it for reading. A server
// that is unavailable is tried again as Retry says.
func (e *Endpoint) Connect(ctx context.Context, database string) (*Conn, error) {
	wait := e.retry.First
	for attempt := 0; ; attempt++ {
		conn, err := e.ConnectOnce(ctx, database)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil { // given up by the caller, not lost
			return nil, context.Cause(ctx)
		}
		if attempt >= e.retry.Attempts || !fault.Is(err, fault.Unavailable) {
			return nil, err
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

// ConnectOnce is Connect without trying again.
func (e *Endpoint) ConnectOnce(ctx context.Context, database string) (*Conn, error) {
	params := e.params.With(Params{"dbname": database, "application_name": e.app})
	cfg, err := pgx.ParseConfig(params.conninfo(func(key string) bool { return knownKeywords[key] }))
	if err != nil {
		return nil, fault.New(fault.Usage, "check the connection options and the PG* environment variables",
			"connection options: %w", withoutConninfo(err))
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	cfg.DialFunc = (&net.Dialer{Timeout: cfg.ConnectTimeout, KeepAliveConfig: keepAlive}).DialContext
	if addr := params["hostaddr"]; addr != "" {
		cfg.LookupFunc = func(context.Context, string) ([]string, error) { return strings.Split(addr, ","), nil }
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

// keepAlive bounds how long a vanished peer goes unnoticed to about 60 s.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// ChildConninfo returns the connection string that makes a child of ours
// reach database on this server. It holds no secret: ChildEnv does.
func (e *Endpoint) ChildConninfo(database, application string) string {
	defaults := Params{
		"connect_timeout": "10", "keepalives": "1", "keepalives_idle": "30", "keepalives_interval": "10",
		"keepalives_count": "3", "tcp_user_timeout": "60000",
	}
	p := defaults.With(e.params).With(Params{"dbname": database, "application_name": application})
	return p.conninfo(func(key string) bool {
		return key != "password" && key != "sslpassword"
	})
}

// ChildEnv returns the environment for children, with the password where the
// user gave one in the connection options.
func (e *Endpoint) ChildEnv() []string {
	env := make([]string, 0, len(e.env)+1)
	for _, kv := range e.env {
		key, _, _ := strings.Cut(kv, "=")
		if e.overrides(key) {
			continue
		}
		env = append(env, kv)
	}
	if password := e.params["password"]; password != "" {
		env = append(env, "PGPASSWORD="+password)
	}
	return env
}

// overrides reports whether an environment variable must not reach a child,
// because the endpoint is already resolved or says something else.
func (e *Endpoint) overrides(key string) bool {
	switch key {
	case "PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE", "PGTARGETSESSIONATTRS", "PGAPPNAME":
		return true
	case "PGPASSWORD":
		return e.params["password"] != ""
	}
	return strings.HasPrefix(key, "DBBACKUP_")
}

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
