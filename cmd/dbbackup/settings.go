package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dbbackup/internal/bytesize"
	"dbbackup/internal/console"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
	"dbbackup/sysprobe"
)

// settings are the resolved flags of one command: what is read through them
// was looked for on the command line, in the environment, in the config file
// and among the defaults, in this order.
type settings struct {
	*cli.Context
	a *application
}

func (a *application) resolve(c *cli.Context) (*settings, error) {
	s := &settings{c, a}
	var err error
	if a.config, err = readConfig(c.String("config")); err != nil {
		return nil, err
	}
	if err := s.refuseEmpty("set", "target-db"); err != nil {
		return nil, err
	}
	a.log, err = console.NewReporter(a.stderr, console.Options{
		Format: s.text("log-format", a.config.LogFormat), Quiet: c.Bool("quiet"),
		Columns: console.Columns(a.stderr), Bars: !c.Bool("no-progress"),
	})
	return s, err
}

// refuseEmpty refuses flags whose value is empty, as a script's unset variable
// leaves them: they must not mean something else than what was meant.
func (s *settings) refuseEmpty(flags ...string) error {
	for _, flag := range flags {
		if s.IsSet(flag) && s.String(flag) == "" {
			return fault.New(fault.Usage, helpHint(s.Context), "--%s is empty", flag)
		}
	}
	return nil
}

// text is a string flag's value.
func (s *settings) text(flag string, inFile *string) string {
	if !s.IsSet(flag) && inFile != nil {
		return *inFile
	}
	return s.String(flag)
}

func (s *settings) number(flag string, inFile *int) int {
	if !s.IsSet(flag) && inFile != nil {
		return *inFile
	}
	return s.Int(flag)
}

func (s *settings) yes(flag string, inFile *bool) bool {
	if !s.IsSet(flag) && inFile != nil {
		return *inFile
	}
	return s.Bool(flag)
}

func (s *settings) list(flag string, inFile []string) []string {
	if !s.IsSet(flag) {
		return inFile
	}
	return s.StringSlice(flag)
}

// lookup finds a variable in the process's environment.
func (a *application) lookup(key string) string {
	for _, kv := range a.env {
		if value, ok := strings.CutPrefix(kv, key+"="); ok {
			return value
		}
	}
	return ""
}

func parseTime(flag, value string) (time.Duration, error) {
	if value == "0" {
		return 0, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 {
		return 0, fault.New(fault.Usage, "", "%s: %q is not a time such as 90s, 15m or 2h", flag, value)
	}
	return d, nil
}

func parseBytes(flag, value string) (int64, error) {
	n, err := bytesize.Parse(value)
	if err != nil {
		return 0, fault.New(fault.Usage, "", "%s: %w", flag, err)
	}
	return n, nil
}

// params are the connection parameters of the flags over those of the file.
func (s *settings) params() (pg.Params, error) {
	file := s.a.config.Connection
	given, err := pg.ParseParams(s.String("dbname"))
	if err != nil {
		return nil, err
	}
	base := pg.Params{}
	// What the environment says beats the file.
	for key, value := range map[string]struct{ env, file string }{
		"host": {"PGHOST", file.Host}, "port": {"PGPORT", file.Port}, "user": {"PGUSER", file.User},
		"dbname": {"PGDATABASE", file.Database}, "sslmode": {"PGSSLMODE", file.SSLMode},
	} {
		if s.a.lookup(value.env) == "" && value.file != "" {
			base[key] = value.file
		}
	}
	return base.With(given).With(pg.Params{
		"host": s.String("host"), "port": s.String("port"), "user": s.String("username"),
	}), nil
}

// endpoint finds the server that the connection flags name, and asks for the
// password as psql does: when the server wants one that nothing gives, or
// first with -W, and never with -w or without a terminal.
func (s *settings) endpoint(ctx context.Context) (*pg.Endpoint, error) {
	params, err := s.params()
	if err != nil {
		return nil, err
	}
	first, never := s.Bool("password"), s.Bool("no-password")
	if first && never {
		return nil, fault.New(fault.Usage, "", "-W asks for a password, -w never does: give one of them")
	}
	if !first {
		endpoint, err := s.resolveEndpoint(ctx, params)
		if never || !errors.Is(err, pg.ErrNoPassword) || !s.a.terminal().CanAsk() {
			return endpoint, err
		}
	}
	if params["password"], err = s.a.askPassword(ctx); err != nil {
		return nil, err
	}
	return s.resolveEndpoint(ctx, params)
}

// terminal is where questions are asked, if somebody is there.
func (a *application) terminal() console.Terminal {
	return console.Terminal{In: a.stdin, Out: a.stderr}
}

// askPassword asks for the password of the connection.
func (a *application) askPassword(ctx context.Context) (string, error) {
	if !a.terminal().CanAsk() {
		return "", fault.New(fault.Usage, "without one: ~/.pgpass (mode 0600) or PGPASSWORD", "a password can only be asked for on a terminal")
	}
	return a.terminal().AskHidden(ctx, "Password: ")
}

func (s *settings) resolveEndpoint(ctx context.Context, params pg.Params) (*pg.Endpoint, error) {
	return pg.Resolve(ctx, pg.Options{
		Params: params, Env: s.a.env, Application: "dbbackup",
		Retry: pg.Retry{Attempts: 4, First: 500 * time.Millisecond, Notify: func(err error, wait time.Duration) {
			s.a.log.Warn("the server is not available; trying again", report.F("in", wait.Round(100*time.Millisecond).String()), report.F("because", err))
		}},
	})
}

func (s *settings) search() pgtool.Search {
	return pgtool.Search{BinDir: s.text("pg-bin", s.a.config.PgBin), Path: s.a.lookup("PATH"), Env: s.a.env}
}

// hostFacts are what the machine lets a run take.
func (s *settings) hostFacts(ctx context.Context) (sysprobe.Facts, sysprobe.Limits) {
	facts, err := sysprobe.Probe(ctx, sysprobe.Options{StorePath: s.storeFolder(), PostgresUser: "postgres"})
	if err != nil {
		s.a.log.Warn("this host could not be probed; taking one job at a time", report.F("because", err))
		return facts, sysprobe.Limits{ParallelDatabases: 1, Jobs: 1, Readers: 1, CompressionProcs: runtime.GOMAXPROCS(0)}
	}
	return facts, facts.Limits()
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// orLimit is a number that was given, or else the host's.
func (s *settings) orLimit(flag string, inFile *int, limit int) int {
	return cmp.Or(s.number(flag, inFile), limit)
}
