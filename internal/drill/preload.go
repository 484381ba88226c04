package drill

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/internal/report"
	"dbbackup/internal/throwaway"
)

// settingsObject is where a set keeps the settings of its server.
const settingsObject = "server/settings.json"

// start starts the throwaway server, with the libraries that the source preloads,
// as far as they are installed here: some extensions cannot be made, or read,
// without theirs.
func (d *drill) start(ctx context.Context) (*throwaway.Server, error) {
	options := throwaway.Options{
		Search: d.o.Search, Major: d.o.major(), Superuser: d.superuser(), Dir: d.o.Dir, Env: d.o.Env,
	}
	wanted, err := d.preloaded(ctx)
	if err != nil {
		return nil, err
	}
	libraries, err := d.installed(ctx, wanted)
	if err != nil {
		return nil, err
	}
	if len(libraries) == 0 {
		return throwaway.Start(ctx, options)
	}
	plain := options
	list := strings.Join(libraries, ",")
	// No background workers: a scheduler must not run the jobs of the restored
	// databases.
	options.Settings = map[string]string{"shared_preload_libraries": list, "max_worker_processes": "0"}
	server, err := throwaway.Start(ctx, options)
	if err == nil {
		d.o.Report.Info("libraries are preloaded as on the source", report.F("libraries", list))
		return server, nil
	}
	if ctx.Err() != nil {
		return nil, err
	}
	d.o.Report.Warn("the throwaway server does not start with the source's preloaded libraries; it is started without", report.F("libraries", list), report.F("because", err))
	return throwaway.Start(ctx, plain)
}

// preloaded are the libraries that the source preloads, where the set says so: one
// whose role may not see that setting does not.
func (d *drill) preloaded(ctx context.Context) ([]string, error) {
	if _, ok := d.o.Set.Object(settingsObject); !ok {
		return nil, nil
	}
	in, err := d.o.Set.OpenObject(ctx, settingsObject)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // only read
	var settings []pg.ServerSetting
	if err := json.NewDecoder(in).Decode(&settings); err != nil {
		return nil, fmt.Errorf("object %s: %w", settingsObject, err)
	}
	var names []string
	for _, s := range settings {
		if s.Name != "shared_preload_libraries" {
			continue
		}
		for name := range strings.SplitSeq(s.Value, ",") {
			if name = strings.Trim(name, ` "`); name != "" {
				names = append(names, strings.TrimPrefix(name, "$libdir/"))
			}
		}
	}
	return names, nil
}

// installed are those of libraries that lie where the programs of the set's version
// have theirs. The others are noted.
func (d *drill) installed(ctx context.Context, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	programs, err := d.o.Search.Server(ctx, d.o.major())
	if err != nil {
		return nil, d.explain(err)
	}
	postgres, err := filepath.EvalSymlinks(programs.Postgres) // as the server itself does
	if err != nil {
		return nil, fmt.Errorf("look for preloaded libraries: %w", err)
	}
	var found []string
	for _, name := range names {
		if isInstalled(filepath.Dir(postgres), name) {
			found = append(found, name)
			continue
		}
		d.result.Notes = append(d.result.Notes, fmt.Sprintf(
			"library %s, which the source preloads, is not installed here: what needs it may be refused", pgname.Printable(name)))
	}
	return found, nil
}

// isInstalled looks beside the programs, as packages (../lib) and builds from source
// (../lib, ../lib/postgresql) lay them out.
func isInstalled(bin, name string) bool {
	if strings.ContainsAny(name, `/'"`) {
		return false
	}
	for _, folder := range []string{"lib", filepath.Join("lib", "postgresql")} {
		path := filepath.Join(bin, "..", folder, strings.TrimSuffix(name, ".so")+".so")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return true
		}
	}
	return false
}
