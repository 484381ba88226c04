package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"dbbackup/backup"
	"dbbackup/internal/backupset"
	"dbbackup/internal/bytesize"
	"dbbackup/internal/console"
	"dbbackup/internal/drill"
	"dbbackup/internal/fault"
	"dbbackup/internal/pgname"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
	"dbbackup/internal/verify"
)

// printer prints lines and keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// listed is one line of list.
type listed struct {
	Stores    []storeState `json:"stores"` // each that has something of it
	ID        string       `json:"id"`
	Status    string       `json:"status"`
	Reason    string       `json:"reason,omitempty"`
	Kind      string       `json:"kind,omitempty"`
	Started   time.Time    `json:"started"`
	Finished  time.Time    `json:"finished"`
	Databases []string     `json:"databases"`
	Bytes     int64        `json:"stored_bytes"`
	Omissions int          `json:"omissions"`
	Failures  int          `json:"failures"`
	Encrypted bool         `json:"encrypted,omitempty"`
	Signer    string       `json:"signer,omitempty"` // fingerprint; checked only with --trust
	Drilled   *drilled     `json:"drilled,omitempty"`
}

type storeState struct {
	Store  string `json:"store"`
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

func (a *application) list(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 0); err != nil {
		return err
	}
	var names []string
	var all [][]inStore
	keys, err := s.readKeys(ctx)
	if err != nil {
		return err
	}
	err = s.eachStore(ctx, func(place store.Place) error {
		entries, err := backupset.List(ctx, place, backupset.WithTrust(keys))
		if err != nil {
			return err
		}
		drills, err := a.readDrills(ctx, place, "")
		if err != nil {
			return err
		}
		var list []inStore
		for _, e := range entries {
			list = append(list, inStore{e, place.String(), lastDrill(drills, e.ID)})
		}
		all, names = append(all, list), append(names, place.String())
		return nil
	})
	if len(all) == 0 {
		return err
	}
	sets := merged(all)
	if s.Bool("json") {
		return errors.Join(err, printListJSON(a.stdout, sets))
	}
	return errors.Join(err, printList(a.stdout, sets, names))
}

// inStore is a set as one store has it.
type inStore struct {
	backupset.Entry
	store string
	last  *drilled
}

// merged brings what several stores have of each set together, oldest first.
func merged(stores [][]inStore) [][]inStore {
	var sets [][]inStore
	at := map[string]int{}
	for _, list := range stores {
		for _, l := range list {
			i, ok := at[l.ID]
			if !ok {
				i = len(sets)
				at[l.ID] = i
				sets = append(sets, nil)
			}
			sets[i] = append(sets[i], l)
		}
	}
	slices.SortStableFunc(sets, func(a, b []inStore) int {
		switch {
		case backupset.Older(a[0].ID, b[0].ID):
			return -1
		case backupset.Older(b[0].ID, a[0].ID):
			return 1
		}
		return 0
	})
	return sets
}

func printListJSON(w io.Writer, sets [][]inStore) error {
	encoder := json.NewEncoder(w)
	for _, set := range sets {
		e := best(set)
		l := listed{
			Stores: []storeState{}, ID: e.ID, Status: string(e.Status), Reason: e.Reason, Kind: string(e.Kind), Started: e.Started, Finished: e.Finished,
			Databases: e.Databases, Bytes: e.Bytes, Omissions: e.Omissions, Failures: len(e.Failures),
			Drilled: e.last,
		}
		if e.Sealed != nil {
			l.Encrypted, l.Signer = true, e.Sealed.Signer
		}
		for _, in := range set {
			l.Stores = append(l.Stores, storeState{in.store, string(in.Status), in.Reason})
		}
		if err := encoder.Encode(l); err != nil {
			return err
		}
	}
	return nil
}

// best is the set in the first store where the set is whole.
func best(set []inStore) inStore {
	for _, l := range set {
		if l.Status == backupset.StatusComplete {
			return l
		}
	}
	return set[0]
}

// printList prints a line for each set; of several stores the names are given.
func printList(w io.Writer, sets [][]inStore, names []string) error {
	if len(sets) == 0 {
		_, err := fmt.Fprintln(w, "The store holds no backup set.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SET\tFINISHED (UTC)\tDATABASES\tSTORED\tSTATE") //nolint:errcheck // Flush reports
	for _, set := range sets {
		e := best(set)
		finished, databases := "", ""
		if !e.Finished.IsZero() {
			finished, databases = e.Finished.UTC().Format("2006-01-02 15:04:05"), fmt.Sprint(len(e.Databases))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", e.ID, finished, databases, bytesize.Format(e.Bytes), state(e.Entry, e.last)+where(set, names)) //nolint:errcheck // Flush reports
	}
	return t.Flush()
}

// where says which of several stores lack a set.
func where(set []inStore, names []string) string {
	if len(names) < 2 {
		return ""
	}
	var lacking []string
	for _, name := range names {
		i := slices.IndexFunc(set, func(l inStore) bool { return l.store == name })
		switch {
		case i < 0:
			lacking = append(lacking, "not in "+name)
		case set[i].Status != backupset.StatusComplete && set[i].Status != best(set).Status:
			lacking = append(lacking, fmt.Sprintf("%s in %s", set[i].Status, name))
		}
	}
	if len(lacking) == 0 {
		return fmt.Sprintf("; in all %d stores", len(names))
	}
	return "; " + strings.Join(lacking, "; ")
}

// state is what an operator must know before relying on a set.
func state(e backupset.Entry, last *drilled) string {
	if e.Status != backupset.StatusComplete {
		return fmt.Sprintf("%s: %s", strings.ToUpper(string(e.Status)), e.Reason)
	}
	var notes []string
	if n := len(e.Failures); n > 0 {
		var names []string
		for _, f := range e.Failures {
			names = append(names, failed(f))
		}
		notes = append(notes, "PARTIAL, failed: "+strings.Join(names, ", "))
	}
	if e.Omissions > 0 {
		notes = append(notes, plural(e.Omissions, "omission"))
	}
	if len(notes) == 0 && (last == nil || last.Result == backupset.DrillOK) {
		notes = append(notes, "ok")
	}
	if e.Sealed != nil {
		notes = append(notes, "encrypted")
	}
	if last != nil {
		notes = append(notes, last.String())
	}
	return strings.Join(notes, "; ")
}

// failed names what failed.
func failed(f backupset.Failure) string {
	if f.Database == "" {
		return "globals"
	}
	return pgname.Printable(f.Database)
}

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

// verifiedJSON is the result of verify.
type verifiedJSON struct {
	Set      string        `json:"set"`
	Result   string        `json:"result"`          // ok or damaged; with --drill also not restorable, or not drilled
	Error    string        `json:"error,omitempty"` // of the drill
	Quick    bool          `json:"quick"`
	Locked   bool          `json:"locked,omitempty"` // encrypted, and no key was given: only digests were compared
	Seconds  float64       `json:"seconds"`
	Problems []problemJSON `json:"problems"`
	Newer    []passedOver  `json:"newer_damaged,omitempty"` // sets that count for nothing, where the newest was asked for
	Drill    *drillJSON    `json:"drill,omitempty"`
}

// passedOver is a damaged set that is newer than the one that was verified.
type passedOver struct {
	Set    string `json:"set"`
	Reason string `json:"reason"`
}

type problemJSON struct {
	Severity string `json:"severity"`
	Database string `json:"database,omitempty"`
	Object   string `json:"object,omitempty"`
	Text     string `json:"text"`
}

func (a *application) verify(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 1); err != nil {
		return err
	}
	if err := s.refuseDrillFlags(); err != nil {
		return err
	}
	began := time.Now()
	ref := cmp.Or(s.Args().First(), backupset.Latest)
	found, err := a.findSet(ctx, s, ref, backupset.Want{})
	if err != nil {
		return err
	}
	defer found.Close() //nolint:errcheck // only a drill writes, and its record is durable by then
	place, set := found.place, found.set
	var newer []passedOver
	if ref == backupset.Latest {
		if newer, err = a.newerDamaged(ctx, s, found); err != nil {
			return err
		}
	}
	var drilling *drill.Options
	if s.Bool("drill") { // what it lacks is said before hours of reading
		if set.Locked() {
			return fault.New(fault.WrongKey, "--identity FILE, --keys DIR or --passphrase-file FILE", "backup set %s is encrypted, and a drill restores it", set.ID())
		}
		if drilling, err = a.drillOptions(ctx, s, set); err != nil {
			return err
		}
	}
	result, err := a.readSet(ctx, s, set)
	if err != nil {
		return err
	}
	result.Seconds, result.Newer = time.Since(began).Seconds(), newer
	if result.Result != "ok" || drilling == nil {
		a.noteVerified(ctx, place, set, result)
		err = a.endVerify(s, set, result)
	} else {
		err = a.drill(ctx, s, place, result, *drilling)
	}
	return a.keep(err, damagedSince(newer))
}

// newerDamaged are the damaged sets that the newest sound one stands in for. A
// restore can do with that; who asks every night whether the newest backup is sound
// is to hear that it is not.
func (a *application) newerDamaged(ctx context.Context, s *settings, f found) ([]passedOver, error) {
	keys, err := s.readKeys(ctx)
	if err != nil {
		return nil, err
	}
	entries, err := backupset.List(ctx, f.place, backupset.WithTrust(keys))
	if err != nil {
		return nil, err
	}
	var newer []passedOver
	for _, e := range entries {
		if e.Status == backupset.StatusDamaged && backupset.Older(f.set.ID(), e.ID) {
			newer = append(newer, passedOver{e.ID, e.Reason})
		}
	}
	return newer, nil
}

func damagedSince(newer []passedOver) error {
	var errs []error
	for _, n := range newer {
		errs = append(errs, fault.New(fault.Integrity, "make a new backup; where another store has the set whole, dbbackup copy SET mends this one",
			"backup set %s is newer, and damaged: %s", n.Set, n.Reason))
	}
	return errors.Join(errs...)
}

// readSet verifies a set by reading it.
func (a *application) readSet(ctx context.Context, s *settings, set *backupset.Set) (verifiedJSON, error) {
	problems, err := verify.Set(ctx, set, verify.Options{Quick: s.Bool("quick"), Search: s.search(), Env: a.env, Report: a.log})
	a.log.Close()
	result := verifiedJSON{Set: set.ID(), Result: "ok", Quick: s.Bool("quick"), Locked: set.Locked(), Problems: []problemJSON{}}
	for _, p := range problems {
		severity := "warning"
		if p.Severity == backupset.Damage {
			severity, result.Result = "damage", "damaged"
		}
		result.Problems = append(result.Problems, problemJSON{severity, p.Database, p.Object, p.Text})
	}
	return result, err
}

// noteVerified leaves word for prune, which reads a set that nobody has verified,
// and relies on one that somebody has. A store that cannot be written to is none of
// verify's business.
func (a *application) noteVerified(ctx context.Context, place store.Place, set *backupset.Set, result verifiedJSON) {
	var err error
	switch {
	case result.Result != "ok":
		err = backupset.ForgetVerified(ctx, set)
	case result.Quick || !ownFolder(place): // what one writes into another's folder its owner cannot read
	default:
		err = backupset.WriteVerified(ctx, set, time.Now())
	}
	if err != nil {
		a.log.Info("that was not noted in the store; prune reads the set for itself", report.F("store", place.String()), report.F("because", console.FirstLine(err)))
	}
}

// ownFolder reports whether a store is this user's, or is no folder. What root writes
// becomes the folder's owner's.
func ownFolder(place store.Place) bool {
	if _, local := place.(store.Local); !local {
		return true
	}
	var info unix.Stat_t
	return os.Geteuid() == 0 || unix.Stat(place.String(), &info) == nil && int(info.Uid) == os.Geteuid()
}

func (a *application) endVerify(s *settings, set *backupset.Set, result verifiedJSON) error {
	if err := a.printVerified(s, set, result); err != nil {
		return err
	}
	if result.Result != "ok" {
		return fault.New(fault.Integrity, "restore from another set, or mend this one from another store (dbbackup copy --check); objects that are not named are sound", "backup set %s is damaged", set.ID())
	}
	return nil
}

func (a *application) printVerified(s *settings, set *backupset.Set, result verifiedJSON) error {
	if s.Bool("json") {
		return json.NewEncoder(a.stdout).Encode(result)
	}
	p := &printer{w: a.stdout}
	for _, problem := range result.Problems {
		p.line("%s: %s", problem.Severity, problem.Text)
	}
	how := "every byte was read, every archive to its end"
	if result.Locked {
		how = "every byte is what was stored; it is encrypted, and without its key nobody looked at what it holds"
	}
	if result.Quick {
		how = "every file is there in its size; contents were not read"
	}
	if result.Result == "ok" {
		m := set.Manifest()
		p.line("%s is sound: %s, %s; %s (%s)", m.ID, plural(len(m.Databases), "database"), plural(len(m.Objects), "object"), how, console.ShortTime(result.Seconds))
	}
	return p.err
}

// gc removes what killed runs left.
func (a *application) gc(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 0); err != nil {
		return err
	}
	return s.eachStore(ctx, func(place store.Place) error { return a.gcStore(ctx, s, place) })
}

func (a *application) gcStore(ctx context.Context, s *settings, place store.Place) (err error) {
	held, release, err := backup.Lock(ctx, place, store.Holder{Host: hostname(), PID: os.Getpid(), Since: time.Now(), Purpose: "gc"})
	if err != nil {
		return err
	}
	defer func() { err = a.keep(err, release()) }()
	n, err := backup.Clean(held, place, a.log)
	if err != nil {
		return err
	}
	backup.Catalog(held, place, a.log)
	where := ""
	if len(s.storeRefs()) > 1 {
		where = " from " + place.String()
	}
	_, err = fmt.Fprintf(a.stdout, "Removed %s of killed runs%s.\n", plural(n, "leftover"), where)
	return err
}
