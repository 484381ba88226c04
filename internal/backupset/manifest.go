package backupset

import (
	"slices"
	"time"
)

// Version is the newest format that this package writes. It reads every version
// up to it and refuses a newer one by name (F1). A set is written in the oldest
// format that can say what it holds.
const Version = 3

// plainVersion is the newest format of a set that is not encrypted, and of what an
// encrypted one holds.
const plainVersion = 2

// Manifest is the content of manifest.json. FORMAT.md specifies every field;
// readers ignore fields that they do not know.
type Manifest struct {
	Format    int       `json:"format"`
	NeedsTool string    `json:"needs_tool"` // the oldest dbbackup that reads this format
	ID        string    `json:"id"`
	Kind      Kind      `json:"kind"`
	Tool      Tool      `json:"tool"`
	Host      string    `json:"host"` // where dbbackup ran
	Started   time.Time `json:"started"`
	Finished  time.Time `json:"finished"`
	// Sealed is there in the manifest of an encrypted set, of which it then is the
	// envelope. Since format 3.
	Sealed *Sealed `json:"sealed,omitempty"`

	Server    Server     `json:"server"`
	Globals   *Globals   `json:"globals,omitempty"` // nil: not captured
	Databases []Database `json:"databases"`
	Omissions []Omission `json:"omissions"` // everything that was not captured (B7)
	Failures  []Failure  `json:"failures"`  // databases or parts that failed; the run's exit code was 1 (B4)
	Objects   []Object   `json:"objects"`   // every file of the set except manifest.json and SHA256SUMS, by name
	// References are objects of older sets that this set needs, by set and name.
	References []Reference `json:"references,omitempty"`
	Resources  Resources   `json:"resources"`
}

// Kind is what a set covers.
type Kind string

// The kinds of set.
const (
	Cluster Kind = "cluster"
	Single  Kind = "single"
)

// Tool identifies a program that took part.
type Tool struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Server describes the source as it was when the capture began (B3).
type Server struct {
	Host             string `json:"host"`
	Port             int    `json:"port"`
	User             string `json:"user"`
	Version          string `json:"version"`
	VersionNum       int    `json:"version_num"`                 // server_version_num, e.g. 150018
	SystemIdentifier string `json:"system_identifier,omitempty"` // empty when the role may not read it
	Timeline         int    `json:"timeline,omitempty"`
	Standby          bool   `json:"standby"`
	Superuser        bool   `json:"superuser"` // whether the capturing role was one
	BootstrapRole    string `json:"bootstrap_role"`
}

// Globals says what of the cluster-wide objects was captured. The SQL itself
// is an object: it may hold password verifiers.
type Globals struct {
	Object        string       `json:"object"`
	RolePasswords bool         `json:"role_passwords"`
	Roles         []string     `json:"roles"`
	Tablespaces   []Tablespace `json:"tablespaces"`
	ServerFiles   []string     `json:"server_files"` // objects: settings, hba, ident
}

// Tablespace is a tablespace of the source.
type Tablespace struct {
	Name     string `json:"name"`
	Owner    string `json:"owner"`
	Location string `json:"location"`
}

// Mode is how one database was captured.
type Mode string

// The modes. Auto is only ever asked for, never recorded.
const (
	Auto      Mode = "auto"
	Custom    Mode = "custom"
	Plain     Mode = "plain"
	Directory Mode = "directory"
	Chunked   Mode = "chunked" // by the native engine
)

// Database is one captured database.
type Database struct {
	Name       string     `json:"name"`
	Mode       Mode       `json:"mode"`
	Why        string     `json:"why"`        // why this mode
	Dump       string     `json:"dump"`       // the object, or for a directory the folder that holds the objects
	Properties string     `json:"properties"` // object: the database's own properties as JSON, which may hold secrets
	Create     string     `json:"create"`     // object: the same properties as SQL, for restores without this tool
	Selection  *Selection `json:"selection,omitempty"`
	// UnreadableTables is of how many tables the server could not read a part, which
	// Omissions list: the run was asked to go on without.
	UnreadableTables int64 `json:"unreadable_tables,omitempty"`

	Owner          string   `json:"owner"`
	Encoding       string   `json:"encoding"`
	LocaleProvider string   `json:"locale_provider"` // libc, icu or builtin
	Collate        string   `json:"collate"`
	CType          string   `json:"ctype"`
	Locale         string   `json:"locale,omitempty"` // ICU or builtin locale
	Tablespace     string   `json:"tablespace"`
	Template       bool     `json:"template"`
	Roles          []string `json:"roles"`       // roles that its objects name
	Tablespaces    []string `json:"tablespaces"` // tablespaces that its objects name
	Extensions     []string `json:"extensions"`

	Snapshot Snapshot `json:"snapshot"`

	DatabaseBytes    int64   `json:"database_bytes"` // pg_database_size
	Tables           int64   `json:"tables"`
	LargeObjects     int64   `json:"large_objects"`
	LargeObjectBytes int64   `json:"large_object_bytes"`
	EstimatedRows    int64   `json:"estimated_rows"`       // the planner's estimate, -1 when unknown
	DumpBytes        int64   `json:"dump_bytes,omitempty"` // before compression: SQL (plain), COPY streams (chunked)
	StoredBytes      int64   `json:"stored_bytes"`
	Chunks           *Chunks `json:"chunks,omitempty"` // mode chunked

	Compression      string    `json:"compression"`       // e.g. gzip:6, none
	CompressionRatio float64   `json:"compression_ratio"` // stored bytes / database bytes
	DumpTool         Tool      `json:"dump_tool"`
	Started          time.Time `json:"started"`
	Finished         time.Time `json:"finished"`
	Attempts         int       `json:"attempts"`
	Resources        Resources `json:"resources"`
}

// Chunks sums up a chunked database.
type Chunks struct {
	Rows  int64 `json:"rows"` // counted
	Count int64 `json:"count"`
	// Reused are the chunks that were proven unchanged since older sets, or
	// since the interrupted run that this one resumed, and not captured again.
	Reused      int64    `json:"reused"`
	ReusedBytes int64    `json:"reused_bytes"` // stored
	From        []string `json:"from"`         // the sets that hold them
}

// Selection is what the user asked for when not the whole database was
// wanted. The dump then holds every definition, and the data of the selected
// tables only. When tables were chosen, restore applies the choice again; when
// some were only excluded, they come back empty.
type Selection struct {
	Tables         []string `json:"tables,omitempty"`
	Schemas        []string `json:"schemas,omitempty"`
	ExcludeTables  []string `json:"exclude_tables,omitempty"`
	ExcludeSchemas []string `json:"exclude_schemas,omitempty"`
	// Selected are the tables whose data was captured, as quoted schema.table.
	Selected []string `json:"selected"`
}

// Chosen reports whether tables were chosen, and not only excluded.
func (s *Selection) Chosen() bool {
	return s != nil && len(s.Tables)+len(s.Schemas) > 0
}

// Snapshot is the exported snapshot that a database was read under (B3).
type Snapshot struct {
	XMin uint64    `json:"xmin"`
	XMax uint64    `json:"xmax"`
	XIP  []uint64  `json:"xip"`
	LSN  string    `json:"lsn"`
	Time time.Time `json:"time"`
	// Timeline is that of the WAL position; 0 when unknown. Since format 2.
	Timeline int64 `json:"timeline,omitempty"`
}

// Omission is something that exists on the source and is not in the set.
type Omission struct {
	Database string `json:"database,omitempty"` // empty: cluster-wide
	Object   string `json:"object"`
	Reason   string `json:"reason"`
	Asked    bool   `json:"asked,omitempty"` // the user asked for it to be left out
}

// Unasked reports whether the set lacks something that nobody asked to leave
// out.
func (m *Manifest) Unasked() bool {
	return slices.ContainsFunc(m.Omissions, func(o Omission) bool { return !o.Asked })
}

// Failure is something that should be in the set and could not be captured.
type Failure struct {
	Database string `json:"database,omitempty"`
	Error    string `json:"error"`
}

// Object is one file of a set.
type Object struct {
	Name   string `json:"name"` // relative to the set, slash-separated
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // lower-case hex
}

// Resources is what a piece of work cost.
type Resources struct {
	Seconds           float64 `json:"seconds"`
	CPUSeconds        float64 `json:"cpu_seconds"` // this process
	ChildCPUSeconds   float64 `json:"child_cpu_seconds"`
	PeakRSSBytes      int64   `json:"peak_rss_bytes"`       // this process
	ChildPeakRSSBytes int64   `json:"child_peak_rss_bytes"` // the largest child
	DiskReadBytes     int64   `json:"disk_read_bytes"`      // by the children, from the block device
	DiskWriteBytes    int64   `json:"disk_write_bytes"`
	StoredBytesPerSec float64 `json:"stored_bytes_per_second"`
}
