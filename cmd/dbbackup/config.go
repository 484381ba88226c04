package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"dbbackup/internal/fault"
)

// defaultConfig is read when no other file is named.
const defaultConfig = "/etc/dbbackup/config.yaml"

// config is the config file. Its keys are the flags' names, with underscores.
// Pointers and nil slices are what the file does not say.
type config struct {
	Store      storeList `yaml:"store"`
	Connection struct {
		Host     string `yaml:"host"`
		Port     string `yaml:"port"`
		User     string `yaml:"user"`
		Database string `yaml:"database"`
		SSLMode  string `yaml:"sslmode"`
	} `yaml:"connection"`
	PgBin             *string `yaml:"pg_bin"`
	capture           `yaml:",inline"`
	ParallelDatabases *int     `yaml:"parallel_databases"`
	Jobs              *int     `yaml:"jobs"`
	StoreQuorum       *int     `yaml:"store_quorum"`
	StorePatience     *string  `yaml:"store_patience"`
	Attempts          *int     `yaml:"attempts"`
	Incremental       *bool    `yaml:"incremental"`
	MaxRate           *string  `yaml:"max_rate"`
	MaxConnections    *int     `yaml:"max_connections"`
	MaxReplicationLag *string  `yaml:"max_replication_lag"`
	MaxSnapshotAge    *string  `yaml:"max_snapshot_age"`
	YieldToDDL        *bool    `yaml:"yield_to_ddl"`
	ExcludeDatabases  []string `yaml:"exclude_databases"`
	Encrypt           *bool    `yaml:"encrypt"`
	Recipients        []string `yaml:"recipients"`
	RecipientsFile    *string  `yaml:"recipients_file"`
	SignWith          *string  `yaml:"sign_with"`
	Keys              *string  `yaml:"keys"`
	Identities        []string `yaml:"identities"`
	PassphraseFile    *string  `yaml:"passphrase_file"`
	Trust             *string  `yaml:"trust"`
	KeepLast          *int     `yaml:"keep_last"`
	KeepDaily         *int     `yaml:"keep_daily"`
	KeepWeekly        *int     `yaml:"keep_weekly"`
	KeepMonthly       *int     `yaml:"keep_monthly"`
	KeepYearly        *int     `yaml:"keep_yearly"`
	KeepWithin        *string  `yaml:"keep_within"`
	MetricsFile       *string  `yaml:"metrics_file"`
	LogFormat         *string  `yaml:"log_format"`
	Hooks             struct {
		Before  []string `yaml:"before"`
		After   []string `yaml:"after"`
		Timeout *string  `yaml:"timeout"`
	} `yaml:"hooks"`
	Databases map[string]capture `yaml:"databases"`
}

// capture are the settings that hold for one database, or for all.
type capture struct {
	Mode             *string  `yaml:"mode,omitempty"`
	ChunkedOver      *string  `yaml:"chunked_over,omitempty"`
	Compression      *string  `yaml:"compression,omitempty"`
	ChunkSize        *string  `yaml:"chunk_size,omitempty"`
	CopyFormat       *string  `yaml:"copy_format,omitempty"`
	Timeout          *string  `yaml:"timeout,omitempty"`
	StallTimeout     *string  `yaml:"stall_timeout,omitempty"`
	LockTimeout      *string  `yaml:"lock_timeout,omitempty"`
	SkipLargeObjects *bool    `yaml:"skip_large_objects,omitempty"`
	ExcludeTables    []string `yaml:"exclude_tables,omitempty"`
}

// readConfig reads a config file. A key that it does not know is an error: a
// mistyped one must not be silently without effect. An empty path means the
// default file, which need not exist.
func readConfig(path string) (config, error) {
	var c config
	optional := path == ""
	if optional {
		path = defaultConfig
	}
	text, err := os.ReadFile(path) //nolint:gosec // the user names it
	if optional && errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fault.New(fault.Usage, "give another file with --config", "read config file: %w", err)
	}
	if err := refuseWritable(path); err != nil {
		return c, err
	}
	if err := decodeConfig(text, &c); err != nil {
		return c, fault.New(fault.Usage, "`dbbackup config --config /dev/null` prints all keys", "config file %s: %w", path, err)
	}
	return c, nil
}

func decodeConfig(text []byte, c *config) error {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	err := decoder.Decode(c)
	var wrong *yaml.TypeError
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &wrong):
		for i, text := range wrong.Errors {
			wrong.Errors[i] = unknownKey.ReplaceAllString(text, `unknown key "$1"`)
		}
		return errors.New(strings.Join(wrong.Errors, "; "))
	case err != nil:
		return err
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return errors.New("it holds more than one document, of which only the first would count")
	}
	return nil
}

// unknownKey is how the library words a key that the struct does not have.
var unknownKey = regexp.MustCompile(`field (.+?) not found in type .*`)

// refuseWritable: a config file names programs to run, so nobody else may
// change it.
func refuseWritable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o022 != 0 {
		return fault.New(fault.Precondition, "chmod go-w "+path, "config file %s can be changed by others (mode %04o)", path, info.Mode().Perm())
	}
	return nil
}
