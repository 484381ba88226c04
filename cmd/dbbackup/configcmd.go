package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"dbbackup/backup"
	"dbbackup/compress"
	"dbbackup/internal/pg"
	"dbbackup/internal/report"
)

// connectionKeys are the config file's keys for parameters of libpq.
var connectionKeys = [...]struct{ key, parameter string }{
	{"host", "host"}, {"port", "port"}, {"user", "user"}, {"database", "dbname"}, {"sslmode", "sslmode"},
}

// printConfig prints what holds, in the config file's own form, so that it can
// be saved as one. Passwords are no part of it.
func (a *application) printConfig(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 0); err != nil {
		return err
	}
	o, err := a.backupOptions(ctx, s, func(*backup.Options) {})
	if err != nil {
		return err
	}
	if err := o.Validate(); err != nil {
		return err
	}
	params, err := s.params()
	if err != nil {
		return err
	}
	hookLimit, err := a.hookLimit(s)
	if err != nil {
		return err
	}
	a.warnUnprinted(params)
	effective := []struct {
		key   string
		value any
	}{
		{"store", s.printedStores()},
		{"store_quorum", s.number("store-quorum", a.config.StoreQuorum)}, {"store_patience", s.text("store-patience", a.config.StorePatience)},
		{"connection", printedConnection(params)}, {"pg_bin", s.search().BinDir},
		{"mode", string(o.Defaults.Mode)}, {"chunked_over", s.text("chunked-over", a.config.ChunkedOver)},
		{"compression", printedCompression(s.text("compression", a.config.Compression), o.Defaults)}, {"chunk_size", s.text("chunk-size", a.config.ChunkSize)},
		{"copy_format", s.text("copy-format", a.config.CopyFormat)}, {"timeout", printedTime(o.Defaults.Limit)},
		{"stall_timeout", printedTime(o.Defaults.Stall)}, {"lock_timeout", printedTime(o.Defaults.LockTimeout)},
		{"skip_large_objects", o.Defaults.SkipLargeObjects}, {"exclude_tables", append([]string{}, o.Defaults.ExcludeTables...)},
		{"parallel_databases", o.ParallelDatabases}, {"jobs", o.Jobs}, {"attempts", o.Attempts},
		{"incremental", o.Incremental}, {"max_rate", s.text("max-rate", a.config.MaxRate)}, {"max_connections", o.MaxConnections},
		{"max_replication_lag", s.text("max-replication-lag", a.config.MaxReplicationLag)},
		{"max_snapshot_age", printedTime(o.MaxSnapshotAge)}, {"yield_to_ddl", o.YieldToDDL},
		{"exclude_databases", append([]string{}, s.list("exclude-db", a.config.ExcludeDatabases)...)},
		{"keep_last", s.number("keep-last", a.config.KeepLast)}, {"keep_daily", s.number("keep-daily", a.config.KeepDaily)},
		{"keep_weekly", s.number("keep-weekly", a.config.KeepWeekly)}, {"keep_monthly", s.number("keep-monthly", a.config.KeepMonthly)},
		{"keep_yearly", s.number("keep-yearly", a.config.KeepYearly)}, {"keep_within", s.text("keep-within", a.config.KeepWithin)},
		{"encrypt", s.yes("encrypt", a.config.Encrypt)}, {"recipients", append([]string{}, s.list("recipient", a.config.Recipients)...)},
		{"recipients_file", s.text("recipients-file", a.config.RecipientsFile)}, {"sign_with", s.text("sign-with", a.config.SignWith)},
		{"keys", s.text("keys", a.config.Keys)}, {"identities", append([]string{}, s.list("identity", a.config.Identities)...)},
		{"passphrase_file", s.text("passphrase-file", a.config.PassphraseFile)}, {"trust", s.text("trust", a.config.Trust)},
		{"metrics_file", s.text("metrics-file", a.config.MetricsFile)}, {"log_format", s.text("log-format", a.config.LogFormat)},
		{"hooks", printedHooks{
			append([]string{}, a.hookArgv(s, "before-hook", a.config.Hooks.Before)...),
			append([]string{}, a.hookArgv(s, "after-hook", a.config.Hooks.After)...), printedTime(hookLimit),
		}},
		{"databases", a.config.Databases},
	}
	for _, e := range effective {
		text, err := yaml.Marshal(map[string]any{e.key: e.value})
		if err != nil {
			return fmt.Errorf("print config: %w", err)
		}
		if _, err := a.stdout.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// printedCompression is what holds, as the config file has it: a number is a
// level of gzip.
func printedCompression(asked string, used backup.Settings) any {
	switch {
	case asked == "auto":
		return asked
	case used.Codec.Name == compress.Zstd:
		return used.Codec.String()
	}
	return used.Level
}

type printedHooks struct {
	Before  []string `yaml:"before"`
	After   []string `yaml:"after"`
	Timeout string   `yaml:"timeout"`
}

func printedConnection(params pg.Params) map[string]string {
	connection := map[string]string{}
	for _, k := range connectionKeys {
		connection[k.key] = params[k.parameter]
	}
	return connection
}

// warnUnprinted names the parameters of a connection string that a config file
// has no key for: the password, and what belongs into libpq's service file.
func (a *application) warnUnprinted(params pg.Params) {
	var others []string
	for parameter := range params {
		known := slices.ContainsFunc(connectionKeys[:], func(k struct{ key, parameter string }) bool { return k.parameter == parameter })
		if !known {
			others = append(others, parameter)
		}
	}
	if len(others) > 0 {
		slices.Sort(others)
		a.log.Warn("not printed, because the config file has no keys for it: keep a password in ~/.pgpass, the rest in a service file (PGSERVICE)",
			report.F("parameters", strings.Join(others, " ")))
	}
}

// printedTime is a duration without the units that are zero: 2h and not 2h0m0s.
func printedTime(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
