package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"dbbackup/backup"
	"dbbackup/internal/backupset"
	"dbbackup/internal/bytesize"
	"dbbackup/internal/console"
	"dbbackup/internal/pgname"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/stores"
	"dbbackup/sysprobe"
)

// probed is the result of probe.
type probed struct {
	Server    probedServer         `json:"server"`
	Host      sysprobe.Facts       `json:"host"`
	Limits    sysprobe.Limits      `json:"limits"`
	Tools     []probedTools        `json:"tools"`
	Databases []probedDatabase     `json:"databases"`
	Omissions []backupset.Omission `json:"omissions"`
}

type probedServer struct {
	Address    string `json:"address"`
	Version    string `json:"version"`
	Identifier string `json:"system_identifier"`
	Standby    bool   `json:"standby"`
	Superuser  bool   `json:"superuser"`
	LockBudget int64  `json:"lock_budget"`
}

type probedTools struct {
	Version string `json:"version"`
	Dir     string `json:"dir"`
}

type probedDatabase struct {
	Name         string        `json:"name"`
	Bytes        int64         `json:"bytes"`
	Tables       int           `json:"tables"`
	LargeObjects int64         `json:"large_objects"`
	Mode         string        `json:"mode,omitempty"`
	Why          string        `json:"why,omitempty"`
	Problem      string        `json:"problem,omitempty"`
	Largest      []probedTable `json:"largest_tables"`
}

type probedTable struct {
	Name       string `json:"name"`
	HeapBytes  int64  `json:"heap_bytes"`
	ToastBytes int64  `json:"toast_bytes"`
}

// probe asks the server and the host, and prints what a backup would do.
func (a *application) probe(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 0); err != nil {
		return err
	}
	o, err := a.backupOptions(ctx, s, func(o *backup.Options) {
		o.Kind, o.Exclude = backupset.Cluster, a.config.ExcludeDatabases
	})
	if err != nil {
		return err
	}
	if err := o.Validate(); err != nil {
		return err
	}
	if o.Source, err = s.endpoint(ctx); err != nil {
		return err
	}
	refs := s.storeRefs()
	_, folder := stores.Folder(refs[0])
	o.Piped = len(refs) > 1 || !folder || s.a.config.Encrypt != nil && *s.a.config.Encrypt
	server, plans, omissions, err := backup.Survey(ctx, o)
	if err != nil {
		return err
	}
	facts, limits := s.hostFacts(ctx)
	p := probed{
		Server: probedServer{o.Source.String(), server.Version, server.SystemIdentifier, server.Standby, server.Superuser, server.LockBudget},
		Host:   facts, Limits: limits, Tools: toolsOf(o.Search.All(ctx)), Omissions: omissions,
	}
	for _, plan := range plans {
		p.Databases = append(p.Databases, probeDatabase(plan))
	}
	a.log.Close()
	if s.Bool("json") {
		return json.NewEncoder(a.stdout).Encode(p)
	}
	return a.printProbe(p)
}

func toolsOf(all []pgtool.Tools) []probedTools {
	tools := []probedTools{}
	for _, t := range all {
		tools = append(tools, probedTools{t.Version.String(), t.Dir})
	}
	return tools
}

func probeDatabase(p backup.Plan) probedDatabase {
	d := probedDatabase{
		Name: p.Database.Name, Bytes: p.Database.Bytes, Tables: p.Tables, LargeObjects: p.Inventory.LargeObjects,
		Mode: string(p.Mode), Why: p.Why, Largest: []probedTable{},
	}
	if p.Problem != nil {
		d.Problem = p.Problem.Error()
	}
	for _, t := range p.Largest {
		d.Largest = append(d.Largest, probedTable{t.Printable(), t.HeapBytes, t.ToastBytes})
	}
	return d
}

func (a *application) printProbe(p probed) error {
	out := &printer{w: a.stdout}
	out.labelled("Server", "PostgreSQL %s at %s, system identifier %s", p.Server.Version, p.Server.Address, p.Server.Identifier)
	out.labelled("Host", "%s, %s of memory available%s", plural(p.Host.CPUs, "CPU"),
		bytesize.Format(p.Host.AvailableMemoryBytes), memoryLimit(p.Host))
	if p.Host.Store != nil {
		out.labelled("Store", "%s free in %s (%s)", bytesize.Format(p.Host.Store.FreeBytes), p.Host.Store.Path, p.Host.Store.Type)
	}
	for _, t := range p.Tools {
		out.labelled("Tools", "%s in %s", t.Version, t.Dir)
	}
	for _, why := range p.Limits.Why {
		out.labelled("Run", "%s", why)
	}
	for i := range p.Databases {
		out.line("")
		printProbed(out, &p.Databases[i])
	}
	if out.err != nil {
		return out.err
	}
	return printOmissions(a.stdout, p.Omissions)
}

// printProbed prints a database in three columns: names, sizes, and what is to
// be said of them.
func printProbed(out *printer, d *probedDatabase) {
	const nameWidth = 26
	row := func(name string, bytes int64, text string) {
		out.wrapped(fmt.Sprintf("%-*s  %8s  ", nameWidth, console.Cut(name, nameWidth), bytesize.Format(bytes)), text)
	}
	verdict := d.Mode + ": " + d.Why
	if d.Problem != "" {
		verdict = "FAILS: " + d.Problem
	}
	row(pgname.Printable(d.Name), d.Bytes, verdict)
	out.line("%*s%s, %s", nameWidth+12, "", plural(d.Tables, "table"), plural(int(d.LargeObjects), "large object"))
	for _, t := range d.Largest {
		outOfLine := ""
		if t.ToastBytes > t.HeapBytes {
			outOfLine = bytesize.Format(t.ToastBytes) + " of it out of line"
		}
		row("  "+t.Name, t.HeapBytes+t.ToastBytes, outOfLine)
	}
}

func memoryLimit(f sysprobe.Facts) string {
	if f.MemoryLimitBytes == 0 {
		return ""
	}
	return fmt.Sprintf(", limited to %s by its cgroup", bytesize.Format(f.MemoryLimitBytes))
}

func (a *application) printVersion(_ context.Context, s *settings) error {
	if s.Bool("json") {
		return json.NewEncoder(a.stdout).Encode(map[string]any{"version": version, "format": backupset.Version})
	}
	return printVersionText(a.stdout)
}

func printVersionText(w io.Writer) error {
	_, err := fmt.Fprintf(w, "dbbackup %s (backup set format %d)\n", version, backupset.Version)
	return err
}
