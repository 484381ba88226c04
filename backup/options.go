package backup

import (
	"time"

	"dbbackup/compress"
	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
)

// Options say what to back up, from where, to where and within which bounds.
// Every field is meant as it stands: there are no defaults here.
type Options struct {
	Source *pg.Endpoint
	Search pgtool.Search
	Store  store.Place
	Report report.Reporter

	// Piped says of a store that is not opened, as by Survey, that pg_dump cannot
	// write into it: it is no folder, or the sets in it are encrypted.
	Piped bool
	// Sealing encrypts the set. A run that goes on with one needs no recipients: it
	// is encrypted as it was begun, or not at all. nil: nothing is encrypted.
	Sealing *backupset.Sealing

	Kind     backupset.Kind
	Database string   // Single: the database, by its exact name
	Exclude  []string // Cluster: patterns of databases to leave out

	// Single: patterns of what to capture with data. See pgname.Pattern.
	Tables, Schemas, ExcludeTables, ExcludeSchemas []string

	Defaults    Settings
	PerDatabase map[string]Settings // complete: the defaults with a section's changes applied

	ParallelDatabases int
	Jobs              int // pg_dump's workers in directory mode
	Readers           int // sessions that read in chunked mode, over all databases
	Procs             int // goroutines that compress in plain mode
	Attempts          int // for each database, while the server is unavailable
	SpaceCheck        bool

	// Of the native engine.
	Incremental    bool          // start from the newest usable set of the same database
	Resume         string        // go on with this unfinished set; the other options are what its run was asked for
	MaxRate        int64         // bytes per second, over all databases; 0: no limit
	MaxConnections int           // sessions in all; 0: no limit
	MaxLag         int64         // bytes of WAL that a standby may lag behind; 0: no limit
	MaxSnapshotAge time.Duration // of other sessions, before the run begins; 0: no limit
	YieldToDDL     bool
	Salvage        bool // capture what the server can read of damaged tables

	Tool    backupset.Tool
	Host    string // this host's name, for the manifest and the lock
	PID     int
	Purpose string // the command, for the lock; without connection options
	Now     func() time.Time
}

// Settings hold for one database.
type Settings struct {
	Mode             backupset.Mode
	ChunkedOver      int64          // bytes of the database above which auto takes chunked
	Level            int            // gzip, 0 to 6
	Codec            compress.Codec // of chunks
	ChunkBytes       int64
	Binary           bool // chunks in COPY's binary form wherever the types allow it
	Limit            time.Duration
	Stall            time.Duration
	LockTimeout      time.Duration
	SkipLargeObjects bool
	ExcludeTables    []string
}

// leastChunkBytes is a page of a table.
const leastChunkBytes = 8192

// Validate finds options that cannot work, before anything is touched.
func (o Options) Validate() error {
	selects := len(o.Tables)+len(o.Schemas)+len(o.ExcludeTables)+len(o.ExcludeSchemas) > 0
	switch {
	case o.Kind == backupset.Single && o.Database == "":
		return fault.New(fault.Usage, "dbbackup backup single NAME", "no database named")
	case o.Kind == backupset.Cluster && selects:
		return fault.New(fault.Usage, "use `dbbackup backup single NAME`, or a section of the config file",
			"tables and schemas can be selected for a single database only")
	case o.ParallelDatabases < 1 || o.Jobs < 1 || o.Readers < 1 || o.Procs < 1 || o.Attempts < 1:
		return fault.New(fault.Usage, "", "numbers of parallel databases, jobs and attempts begin at 1")
	}
	if err := o.validateNative(); err != nil {
		return err
	}
	if err := o.Defaults.validate("defaults"); err != nil {
		return err
	}
	for name, s := range o.PerDatabase {
		if err := s.validate("database " + name); err != nil {
			return err
		}
	}
	return nil
}

// validateNative looks at what concerns the native engine alone.
func (o Options) validateNative() error {
	switch {
	case o.Incremental && o.Sealing != nil && o.Sealing.Keys.Ring.Empty():
		return fault.New(fault.Precondition, "give --identity FILE or --keys DIR, or leave --incremental out",
			"what is unchanged can only be told from an encrypted set that this host can read, and no identity was given")
	case o.Incremental && len(o.PerDatabase) == 0 && o.Defaults.Mode != backupset.Auto && o.Defaults.Mode != backupset.Chunked:
		return fault.New(fault.Usage, "give --mode chunked, or leave the mode to auto", "incremental backups are not for mode %s", o.Defaults.Mode)
	case o.MaxRate < 0 || o.MaxConnections < 0 || o.MaxLag < 0 || o.MaxSnapshotAge < 0:
		return fault.New(fault.Usage, "", "limits cannot be negative")
	case o.MaxConnections > 0 && o.MaxConnections < sessionsPerDatabase+1:
		return fault.New(fault.Usage, "", "the native engine needs %d connections at least", sessionsPerDatabase+1)
	}
	return nil
}

func (s Settings) validate(of string) error {
	switch s.Mode {
	case backupset.Auto, backupset.Custom, backupset.Plain, backupset.Directory, backupset.Chunked:
	default:
		return fault.New(fault.Usage, "modes are auto, custom, plain, directory and chunked", "%s: unknown mode %q", of, s.Mode)
	}
	if s.ChunkBytes < leastChunkBytes {
		return fault.New(fault.Usage, "", "%s: chunks of %d bytes are smaller than a page of %d", of, s.ChunkBytes, leastChunkBytes)
	}
	if s.Codec.Level > compress.MaxLevel {
		return fault.New(fault.Usage, "", "%s: compression level %d is above %d", of, s.Codec.Level, compress.MaxLevel)
	}
	if s.Level < 0 || s.Level > compress.MaxLevel {
		return fault.New(fault.Usage, "", "%s: compression level %d is not between 0 and %d", of, s.Level, compress.MaxLevel)
	}
	if s.Limit < 0 || s.Stall < 0 || s.LockTimeout < 0 || s.ChunkedOver < 0 {
		return fault.New(fault.Usage, "", "%s: times and sizes cannot be negative", of)
	}
	return nil
}

// settings returns what holds for a database.
// writes are the options of a set's writer.
func (o Options) writes() []backupset.WriterOption {
	if o.Sealing == nil {
		return nil
	}
	return []backupset.WriterOption{backupset.WithSealing(*o.Sealing)}
}

// reads are the options to open older sets with.
func (o Options) reads() []backupset.Option {
	if o.Sealing == nil {
		return nil
	}
	return []backupset.Option{backupset.WithKeys(o.Sealing.ReadKeys())}
}

func (o Options) settings(database string) Settings {
	if s, ok := o.PerDatabase[database]; ok {
		return s
	}
	return o.Defaults
}
