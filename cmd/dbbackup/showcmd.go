package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/bytesize"
	"dbbackup/internal/console"
	"dbbackup/internal/pgname"
)

func (a *application) show(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 1); err != nil {
		return err
	}
	found, err := a.findSet(ctx, s, cmp.Or(s.Args().First(), backupset.Latest), backupset.Want{})
	if err != nil {
		return err
	}
	defer found.Close() //nolint:errcheck // only read
	place, set := found.place, found.set
	drills, err := a.readDrills(ctx, place, set.ID())
	if err != nil {
		return err
	}
	last := lastDrill(drills, set.ID())
	if s.Bool("json") {
		return json.NewEncoder(a.stdout).Encode(shownSet{set.Manifest(), set.Locked(), last})
	}
	print := printSet
	if set.Locked() {
		print = printLocked
	}
	if err := print(a.stdout, set.Manifest()); err != nil || last == nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "\n%s\n", last)
	return err
}

// shownSet is what show prints: the manifest, and the newest drill beside it.
type shownSet struct {
	*backupset.Manifest
	Locked  bool     `json:"locked,omitempty"` // encrypted, and no key was given: most is left empty
	Drilled *drilled `json:"drilled,omitempty"`
}

// printLocked prints what an encrypted set shows to those who cannot open it.
func printLocked(w io.Writer, m *backupset.Manifest) error {
	p := &printer{w: w}
	p.labelled("Set", "%s (%s, format %d, by dbbackup %s)", m.ID, m.Kind, m.Format, m.Tool.Version)
	p.labelled("Taken", "%s to %s", m.Started.UTC().Format(time.RFC3339), m.Finished.UTC().Format(time.RFC3339))
	p.labelled("Server", "PostgreSQL %s, system identifier %s", m.Server.Version, cmp.Or(m.Server.SystemIdentifier, "unknown"))
	printSealed(p, m.Sealed)
	p.labelled("", "locked: give --identity, --keys or --passphrase-file to see more")
	for i := range m.Databases {
		d := &m.Databases[i]
		p.labelled("Database", "%s: %s, %s; %s stored", pgname.Printable(d.Name), bytesize.Format(d.DatabaseBytes), d.Mode, bytesize.Format(d.StoredBytes))
	}
	for _, f := range m.Failures {
		p.labelled("FAILED", "%s", failed(f))
	}
	if n := len(m.Omissions); n > 0 {
		p.labelled("Omitted", "%s", plural(n, "omission"))
	}
	return p.err
}

// printSealed says for whom a set is encrypted, and that it is signed.
func printSealed(p *printer, sealed *backupset.Sealed) {
	if sealed == nil {
		return
	}
	p.labelled("Encrypted", "with a key of its own, %s", sealed.Recipient)
	if sealed.Signer != "" {
		p.labelled("", "signed by the key %s", sealed.Signer)
	}
}

func printSet(w io.Writer, m *backupset.Manifest) error {
	p := &printer{w: w}
	p.labelled("Set", "%s (%s, format %d, by dbbackup %s on %s)", m.ID, m.Kind, m.Format, m.Tool.Version, m.Host)
	p.labelled("Taken", "%s to %s", m.Started.UTC().Format(time.RFC3339), m.Finished.UTC().Format(time.RFC3339))
	standby := ""
	if m.Server.Standby {
		standby = ", a standby"
	}
	p.labelled("Server", "PostgreSQL %s at %s:%d as %s%s", m.Server.Version, m.Server.Host, m.Server.Port, m.Server.User, standby)
	p.labelled("", "system identifier %s, timeline %d", cmp.Or(m.Server.SystemIdentifier, "unknown"), m.Server.Timeline)
	printSealed(p, m.Sealed)
	if g := m.Globals; g != nil {
		passwords := "with password verifiers"
		if !g.RolePasswords {
			passwords = "without passwords"
		}
		p.labelled("Globals", "%s: %s (%s), %s", g.Object, plural(len(g.Roles), "role"), passwords, plural(len(g.Tablespaces), "tablespace"))
		p.labelled("", "server files: %s", strings.Join(g.ServerFiles, ", "))
	}
	p.labelled("Resources", "%s, own memory at most %s, children's %s", console.ShortTime(m.Resources.Seconds),
		bytesize.Format(m.Resources.PeakRSSBytes), bytesize.Format(m.Resources.ChildPeakRSSBytes))
	for i := range m.Databases {
		printDatabase(p, &m.Databases[i])
	}
	for _, f := range m.Failures {
		p.labelled("FAILED", "%s: %s", failed(f), f.Error)
	}
	if p.err != nil {
		return p.err
	}
	return printOmissions(w, m.Omissions)
}

func printDatabase(p *printer, d *backupset.Database) {
	p.line("")
	p.labelled("Database", "%s: %s, %s because %s", pgname.Printable(d.Name), bytesize.Format(d.DatabaseBytes), d.Mode, d.Why)
	p.labelled("", "%s: %s stored (%s, ratio %.2f) in %s", d.Dump, bytesize.Format(d.StoredBytes), d.Compression, d.CompressionRatio, console.ShortTime(d.Resources.Seconds))
	rows := "rows not known"
	if d.EstimatedRows >= 0 {
		rows = fmt.Sprintf("about %d rows", d.EstimatedRows)
	}
	p.labelled("", "%s, %s, %s; snapshot at %s, xmin %d, xmax %d", plural(int(d.Tables), "table"), rows,
		plural(int(d.LargeObjects), "large object"), d.Snapshot.LSN, d.Snapshot.XMin, d.Snapshot.XMax)
	p.labelled("", "owner %s, %s, %s %s/%s, %s %s", pgname.Printable(d.Owner), d.Encoding, d.LocaleProvider, d.Collate, d.CType, d.DumpTool.Name, d.DumpTool.Version)
	printChunks(p, d.Chunks)
	switch {
	case d.Selection.Chosen():
		p.labelled("", "PART of the database: the data of %s", plural(len(d.Selection.Selected), "table"))
	case d.Selection != nil:
		p.labelled("", "WITHOUT the data of %s", strings.Join(append(append([]string{}, d.Selection.ExcludeTables...), d.Selection.ExcludeSchemas...), ", "))
	}
}

// printChunks says what the native engine read, and what it found unchanged.
func printChunks(p *printer, c *backupset.Chunks) {
	if c == nil {
		return
	}
	text := fmt.Sprintf("%s with %s, counted", plural(int(c.Count), "chunk"), plural(int(c.Rows), "row"))
	if c.Reused > 0 {
		from := "this run's interrupted beginning"
		if len(c.From) > 0 {
			from = strings.Join(c.From, ", ")
		}
		text += fmt.Sprintf("; %d of them (%s) were proven unchanged and not read again, from %s", c.Reused, bytesize.Format(c.ReusedBytes), from)
	}
	p.labelled("", "%s", text)
}
