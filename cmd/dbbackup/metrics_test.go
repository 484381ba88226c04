package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// scraped is a metrics file as the node exporter reads it.
type scraped map[string]*dto.MetricFamily

func readMetrics(t *testing.T, path string) scraped {
	t.Helper()
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(in)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// value finds a gauge's value, of a database, of a store or of the run.
func (f scraped) value(name, database string) (float64, bool) {
	for _, m := range f[name].GetMetric() {
		labels := m.GetLabel()
		if database == "" && len(labels) == 0 || len(labels) == 1 && labels[0].GetValue() == database {
			return m.GetGauge().GetValue(), true
		}
	}
	return 0, false
}

func (f scraped) want(t *testing.T, name, database string, want float64) {
	t.Helper()
	if got, ok := f.value(name, database); !ok || got != want {
		t.Errorf("%s of %q: got %v (found: %t), want %v", name, database, got, ok, want)
	}
}

func (f scraped) wantRecent(t *testing.T, name, database string, since time.Time) {
	t.Helper()
	got, ok := f.value(name, database)
	if !ok || got < float64(since.Unix()) || got > float64(time.Now().Unix()+1) {
		t.Errorf("%s of %q: got %v (found: %t), want a time between %d and now", name, database, got, ok, since.Unix())
	}
}

func TestMetricsOfAClusterWithOddNamesAndAFailure(t *testing.T) {
	t.Parallel()
	server := shared.Start(t)
	began := time.Now()
	odd := "a \"quoted\"\\ ü\nname"
	for _, db := range []string{odd, "good", "bad"} {
		server.CreateDatabase(t, db)
		server.Exec(t, db, "CREATE TABLE t AS SELECT generate_series(1, 1000) a")
	}
	store, file := newStore(t), filepath.Join(t.TempDir(), "dbbackup.prom")
	args := []string{"backup", "cluster", "--store", store, "--metrics-file", file}
	dbbackup(t, server.Env(), args...).must(t, 0)
	m := readMetrics(t, file)
	for _, db := range []string{odd, "good", "bad"} {
		m.want(t, "dbbackup_database_last_run_ok", db, 1)
		m.wantRecent(t, "dbbackup_database_last_success_timestamp_seconds", db, began)
	}
	m.want(t, "dbbackup_last_run_exit_code", "", 0)
	m.wantRecent(t, "dbbackup_last_run_timestamp_seconds", "", began)
	firstSuccess, _ := m.value("dbbackup_database_last_success_timestamp_seconds", "bad")
	if rss, _ := m.value("dbbackup_last_run_peak_rss_bytes", ""); rss < 1<<20 || rss > 1<<30 {
		t.Errorf("peak memory: got %v bytes", rss)
	}

	// A database that fails, and the others do not.
	conn := server.Connect(t, "bad")
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE t"); err != nil {
		t.Fatal(err)
	}
	dbbackup(t, server.Env(), append(args, "--lock-timeout", "500ms", "--attempts", "1")...).want(t, exitFailed, "bad")
	m = readMetrics(t, file)
	m.want(t, "dbbackup_database_last_run_ok", "bad", 0)
	m.want(t, "dbbackup_database_last_run_ok", odd, 1)
	m.want(t, "dbbackup_last_run_exit_code", "", 1)
	m.want(t, "dbbackup_database_last_success_timestamp_seconds", "bad", firstSuccess)
	if newer, _ := m.value("dbbackup_database_last_success_timestamp_seconds", "good"); newer < firstSuccess {
		t.Errorf("last success of good: got %v, want it after %v", newer, firstSuccess)
	}

	// A run that does not even reach its server.
	dbbackup(t, append(server.Env(), "PGUSER=nobody"), args...).want(t, exitPrecondition)
	m = readMetrics(t, file)
	m.want(t, "dbbackup_last_run_exit_code", "", exitPrecondition)
	m.want(t, "dbbackup_last_run_stored_bytes", "", 0)
	m.want(t, "dbbackup_database_last_success_timestamp_seconds", "bad", firstSuccess)
}

// TestMetricsFileIsReplacedAtOnce: the node exporter runs as another user and
// reads at any time.
func TestMetricsFileIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	folder := t.TempDir()
	file := filepath.Join(folder, "dbbackup.prom")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	dbbackup(t, server.Env(), "backup", "single", server.Database(t), "--store", newStore(t), "--metrics-file", file).must(t, 0)

	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o644 {
		t.Errorf("mode: got %o, want 644", got)
	}
	old := make([]byte, 16)
	if n, _ := reader.Read(old); string(old[:n]) != "old" {
		t.Errorf("a reader of the old file got %q: it was written in place", old[:n])
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 1 {
		t.Errorf("got %v (%v), want nothing but the metrics", entries, err)
	}
}

func TestMetricsThatCannotBeWrittenFailTheRun(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	store := newStore(t)
	got := dbbackup(t, server.Env(), "backup", "single", server.Database(t), "--store", store, "--metrics-file", "/nonexistent/x.prom")
	got.want(t, exitFailed, "metrics file /nonexistent/x.prom", "the folder must exist")
	if !strings.Contains(got.stdout, onlySet(t, store)) {
		t.Errorf("standard output: got %s, want the set that was made", got.stdout)
	}
}

// What prune did stands beside what backup did, whoever wrote last.
func TestMetricsOfPrune(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	began, db := time.Now(), smallDatabase(t, c)
	store, ids := severalSets(t, c, db, 3)
	file := filepath.Join(t.TempDir(), "dbbackup.prom")
	backup := []string{"backup", "single", db, "--store", store, "--metrics-file", file}
	prune := pruning(store, "--keep-last", "2", "--metrics-file", file)
	want := func(exit, kept, removed, left float64) scraped {
		t.Helper()
		m := readMetrics(t, file)
		m.want(t, "dbbackup_prune_last_run_exit_code", "", exit)
		m.wantRecent(t, "dbbackup_prune_last_run_timestamp_seconds", "", began)
		m.wantRecent(t, "dbbackup_prune_last_success_timestamp_seconds", "", began)
		m.want(t, "dbbackup_prune_sets_kept", store, kept)
		m.want(t, "dbbackup_prune_sets_removed", store, removed)
		m.want(t, "dbbackup_prune_sets_left", store, left)
		return m
	}
	dbbackup(t, c.Env(), append(backup, "--keep-last", "3")...).must(t, exitOK)
	m := want(exitOK, 3, 1, 0)
	m.want(t, "dbbackup_last_run_exit_code", "", 0)
	if bytes, _ := m.value("dbbackup_prune_removed_bytes", store); bytes <= 0 {
		t.Errorf("%v bytes were removed", bytes)
	}
	success, _ := m.value("dbbackup_prune_last_success_timestamp_seconds", "")

	release := immutable(t, filepath.Join(store, ids[1]))
	dbbackup(t, nil, prune...).want(t, exitFailed, ids[1])
	release()
	m = want(exitFailed, 2, 0, 1)
	m.want(t, "dbbackup_prune_last_success_timestamp_seconds", "", success)
	m.want(t, "dbbackup_database_last_run_ok", db, 1) // the backup's are still there
	dbbackup(t, c.Env(), backup...).must(t, exitOK)
	want(exitFailed, 2, 0, 1)
	dbbackup(t, nil, append(prune, "--dry-run")...).must(t, exitOK)
	want(exitFailed, 2, 0, 1)
	dbbackup(t, nil, prune...).must(t, exitOK)
	m = want(exitOK, 2, 2, 0)
	if again, _ := m.value("dbbackup_prune_last_success_timestamp_seconds", ""); again <= success {
		t.Errorf("prune last succeeded at %v, want it after %v", again, success)
	}
}
