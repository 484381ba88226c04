package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/stores"
	"dbbackup/sysprobe"
)

// finding is one line of doctor.
type finding struct {
	About   string `json:"about"`
	State   string `json:"state"` // ok, advice or problem
	Text    string `json:"text"`
	Reason  string `json:"reason,omitempty"`
	Warning string `json:"warning,omitempty"`
}

// doctor looks at everything that a backup needs, and goes on after each thing
// that is missing, so that one run names them all.
func (a *application) doctor(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 0); err != nil {
		return err
	}
	var findings []finding
	server := a.examineServer(ctx, s, &findings)
	a.examineTools(ctx, s, server, &findings)
	a.examineStore(ctx, s, &findings)
	if err := a.examineHost(ctx, s, server, &findings); err != nil {
		return err
	}
	if err := a.printFindings(s, findings); err != nil {
		return err
	}
	for _, f := range findings {
		if f.State == "problem" {
			return fault.New(fault.Precondition, "", "a backup would fail: see above")
		}
	}
	return nil
}

func (a *application) examineServer(ctx context.Context, s *settings, findings *[]finding) *pg.Server {
	var server pg.Server
	endpoint, err := s.endpoint(ctx)
	if err == nil {
		err = endpoint.RefusePooler(ctx)
	}
	if err == nil {
		var conn *pg.Conn
		if conn, err = endpoint.Connect(ctx, endpoint.Database); err == nil {
			server, err = conn.Server(ctx)
			conn.Close(ctx) //nolint:errcheck // only read from
		}
	}
	if err != nil {
		*findings = append(*findings, problem("server", err))
		return nil
	}
	*findings = append(*findings, finding{About: "server", State: "ok", Text: fmt.Sprintf("PostgreSQL %s at %s", server.Version, endpoint)})
	if !server.Superuser {
		*findings = append(*findings, finding{About: "role", State: "advice",
			Text:   fmt.Sprintf("%s is no superuser: passwords of roles, subscriptions and some large objects will be missing", endpoint.User),
			Reason: "what a role may not read is declared in the set, and the exit code is 3"})
	}
	return &server
}

func problem(about string, err error) finding {
	return finding{About: about, State: "problem", Text: err.Error(), Reason: strings.Join(fault.Hints(err), "; ")}
}

func (a *application) examineTools(ctx context.Context, s *settings, server *pg.Server, findings *[]finding) {
	if server == nil {
		return
	}
	tools, err := s.search().ForServer(ctx, server.VersionNum)
	if err != nil {
		*findings = append(*findings, problem("tools", err))
		return
	}
	*findings = append(*findings, finding{About: "tools", State: "ok", Text: fmt.Sprintf("pg_dump %s in %s", tools.Version, tools.Dir)})
}

func (a *application) examineStore(ctx context.Context, s *settings, findings *[]finding) {
	for _, ref := range s.storeRefs() {
		s.examine(ctx, ref, findings)
	}
}

func (s *settings) examine(ctx context.Context, ref string, findings *[]finding) {
	place, err := s.open(ctx, ref, false)
	folder, local := stores.Folder(ref)
	if parent, missing := missingFolder(folder); local && missing && fault.Is(err, fault.NotFound) {
		f := finding{About: "store", State: "advice", Text: folder + " does not exist; the first backup makes it"}
		if unix.Access(parent, unix.W_OK|unix.X_OK) != nil {
			f.State, f.Text = "problem", fmt.Sprintf("%s does not exist, and this user may not make it in %s", folder, parent)
		}
		*findings = append(*findings, f)
		return
	}
	if err == nil {
		defer place.Close() //nolint:errcheck // only probed
		err = place.CheckWritable(ctx)
	}
	if err != nil {
		*findings = append(*findings, problem("store", err))
		return
	}
	*findings = append(*findings, finding{About: "store", State: "ok", Text: ref + " is writable"})
	for _, warning := range place.Warnings() {
		*findings = append(*findings, finding{About: "store", State: "advice", Text: warning})
	}
}

// missingFolder reports whether there is nothing at a path yet, and the nearest
// folder above it.
func missingFolder(path string) (parent string, missing bool) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", false
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return "", false
	}
	for parent = filepath.Dir(path); parent != filepath.Dir(parent); parent = filepath.Dir(parent) {
		if _, err := os.Lstat(parent); err == nil {
			break
		}
	}
	return parent, true
}

func (a *application) examineHost(ctx context.Context, s *settings, server *pg.Server, findings *[]finding) error {
	o := sysprobe.Options{StorePath: s.storeFolder(), PostgresUser: s.String("postgres-user")}
	if server != nil && server.DataDirectory != "" && s.localServer() {
		o.DataDirectories = []string{server.DataDirectory}
	}
	facts, err := sysprobe.Probe(ctx, o)
	if err != nil {
		return err
	}
	for _, advice := range sysprobe.Advise(facts) {
		f := finding{About: advice.Key, State: "ok", Text: advice.Current, Reason: advice.Reason, Warning: advice.Warning}
		if advice.Severity != sysprobe.Fine {
			f.State, f.Text = "advice", fmt.Sprintf("is %s, better %s", advice.Current, advice.Wanted)
		}
		*findings = append(*findings, f)
	}
	return nil
}

// localServer is a guess for doctor's sake: a data directory of that name here
// is the server's only when the server is here.
func (s *settings) localServer() bool {
	host := s.String("host")
	if host == "" {
		host = s.a.lookup("PGHOST")
	}
	return host == "" || host == "localhost" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "127.")
}

func (a *application) printFindings(s *settings, findings []finding) error {
	if s.Bool("json") {
		encoder := json.NewEncoder(a.stdout)
		for _, f := range findings {
			if err := encoder.Encode(f); err != nil {
				return err
			}
		}
		return nil
	}
	// The worst comes last: that is what a terminal still shows.
	order := map[string]int{"ok": 0, "advice": 1, "problem": 2}
	sorted := slices.SortedStableFunc(slices.Values(findings), func(a, b finding) int { return order[a.State] - order[b.State] })
	p := &printer{w: a.stdout}
	p.wrapped("", "scripts/tune-host.sh --check explains the host's settings, --apply sets them and --revert takes that back.")
	p.line("")
	for _, f := range sorted {
		f.print(p)
	}
	return p.err
}

func (f finding) print(p *printer) {
	const indent = "         "
	if f.State != "ok" {
		p.line("")
	}
	p.wrapped(fmt.Sprintf("%-8s ", f.State), f.About+": "+f.Text)
	if f.State == "ok" {
		return
	}
	if f.Reason != "" {
		p.wrapped(indent, f.Reason)
	}
	if f.Warning != "" {
		p.wrapped(indent, "Careful: "+f.Warning)
	}
}
