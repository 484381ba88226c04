package pgtest

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// sessionSettings make a session immune to whatever a test set for the role or
// the database: a client's own settings win over both.
var sessionSettings = map[string]string{
	"datestyle":                           "ISO, YMD",
	"intervalstyle":                       "postgres",
	"extra_float_digits":                  "3",
	"bytea_output":                        "hex",
	"timezone":                            "UTC",
	"standard_conforming_strings":         "on",
	"row_security":                        "on",
	"default_transaction_read_only":       "off",
	"default_transaction_isolation":       "read committed",
	"statement_timeout":                   "0",
	"lock_timeout":                        "0",
	"idle_in_transaction_session_timeout": "0",
	"client_min_messages":                 "warning",
	"search_path":                         `"$user", public`,
}

// Quote quotes an identifier.
func Quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// URI returns a connection URI for a database, password included. Any name
// survives it.
func (c *Cluster) URI(db string) string {
	u := url.URL{Scheme: "postgresql", User: url.UserPassword(c.User, c.Password), Host: c.Host + ":" + strconv.Itoa(c.Port)}
	// As a parameter, because a path loses leading slashes; %20, because libpq
	// does not read + as a space.
	return u.String() + "/?dbname=" + strings.ReplaceAll(url.QueryEscape(db), "+", "%20")
}

// Env returns the libpq environment that leads to the cluster, PGDATABASE
// excepted.
func (c *Cluster) Env() []string {
	return []string{"PGHOST=" + c.Host, "PGPORT=" + strconv.Itoa(c.Port), "PGUSER=" + c.User, "PGPASSWORD=" + c.Password}
}

// Dial connects to a database. The caller closes the connection.
func (c *Cluster) Dial(ctx context.Context, db string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig("sslmode=disable connect_timeout=10")
	if err != nil {
		return nil, err
	}
	cfg.Host, cfg.Port, cfg.User, cfg.Password, cfg.Database = c.Host, uint16(c.Port), c.User, c.Password, db
	cfg.Fallbacks = nil
	cfg.RuntimeParams = map[string]string{"client_encoding": "UTF8", "application_name": "pgtest"}
	for name, value := range sessionSettings {
		cfg.RuntimeParams[name] = value
	}
	return pgx.ConnectConfig(ctx, cfg)
}

// Connect connects to a database until the test is over.
func (c *Cluster) Connect(tb testing.TB, db string) *pgx.Conn {
	tb.Helper()
	conn, err := c.Dial(context.Background(), db)
	if err != nil {
		tb.Fatalf("connect to database %q: %v", db, err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Exec runs statements, several in one implicit transaction.
func (c *Cluster) Exec(tb testing.TB, db, sql string) {
	tb.Helper()
	if err := c.TryExec(db, sql); err != nil {
		tb.Fatalf("in database %q: %v", db, err)
	}
}

// Query returns the rows of one or more statements as text, NULL as "NULL".
func (c *Cluster) Query(tb testing.TB, db, sql string) [][]string {
	tb.Helper()
	rows, err := c.query(db, sql)
	if err != nil {
		tb.Fatalf("in database %q: %v", db, err)
	}
	return rows
}

// QueryString returns the first column of the only row.
func (c *Cluster) QueryString(tb testing.TB, db, sql string) string {
	tb.Helper()
	rows := c.Query(tb, db, sql)
	if len(rows) != 1 || len(rows[0]) == 0 {
		tb.Fatalf("in database %q: %s: got %d rows, want 1", db, sql, len(rows))
	}
	return rows[0][0]
}

// Database makes an empty database for the test and drops it afterwards.
func (c *Cluster) Database(tb testing.TB) string {
	tb.Helper()
	name := c.FreeName(tb)
	c.Exec(tb, "postgres", "CREATE DATABASE "+name)
	return name
}

// FreeName returns a name that no database has, which needs no quotes. The database
// that gets it is dropped when the test is over.
func (c *Cluster) FreeName(tb testing.TB) string {
	tb.Helper()
	for {
		name := "test" + strconv.FormatInt(c.databases.Add(1), 10)
		// Another cluster's may have been restored here.
		if len(c.Query(tb, "postgres", "SELECT FROM pg_database WHERE datname = '"+name+"'")) == 0 {
			tb.Cleanup(func() { c.DropDatabase(tb, name) })
			return name
		}
	}
}

// CreateDatabase makes an empty database of the name and drops it when the test
// is over, if it is still there.
func (c *Cluster) CreateDatabase(tb testing.TB, name string) {
	tb.Helper()
	c.Exec(tb, "postgres", "CREATE DATABASE "+Quote(name))
	tb.Cleanup(func() { c.DropDatabase(tb, name) })
}

// DropDatabase drops a database if it exists, with its subscriptions and
// whoever is connected to it. It does nothing where the server does not run.
func (c *Cluster) DropDatabase(tb testing.TB, name string) {
	tb.Helper()
	if gone, _ := c.running(); gone == nil {
		return
	}
	rows := c.Query(tb, "postgres", "SELECT datname, quote_ident(subname) FROM pg_subscription JOIN pg_database d ON d.oid = subdbid")
	for _, row := range rows {
		if sub := row[1]; row[0] == name {
			c.Exec(tb, name, "ALTER SUBSCRIPTION "+sub+" DISABLE; ALTER SUBSCRIPTION "+sub+" SET (slot_name = NONE); DROP SUBSCRIPTION "+sub)
		}
	}
	c.Exec(tb, "postgres", "DROP DATABASE IF EXISTS "+Quote(name)+" WITH (FORCE)")
}

// TryExec is Exec for statements whose failure the caller wants to see.
func (c *Cluster) TryExec(db, sql string) error {
	_, err := c.query(db, sql)
	return err
}

func (c *Cluster) query(db, sql string) ([][]string, error) {
	ctx := context.Background()
	conn, err := c.Dial(ctx, db)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%w in: %.200s", err, sql)
	}
	var rows [][]string
	for _, result := range results {
		rows = append(rows, texts(result)...)
	}
	return rows, nil
}

func texts(result *pgconn.Result) [][]string {
	rows := make([][]string, 0, len(result.Rows))
	for _, row := range result.Rows {
		values := make([]string, len(row))
		for i, v := range row {
			if values[i] = string(v); v == nil {
				values[i] = "NULL"
			}
		}
		rows = append(rows, values)
	}
	return rows
}

func (c *Cluster) readVersion() error {
	rows, err := c.query("postgres", "SHOW server_version_num")
	if err != nil {
		return err
	}
	c.VersionNum, err = strconv.Atoi(rows[0][0])
	return err
}
