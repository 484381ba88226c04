package main

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dbbackup/internal/backupset"
	"dbbackup/internal/store"
)

// writeMetrics writes the run's result as a Prometheus textfile. When something
// last succeeded is read from the store, so that it is right also after a run that
// failed.
func (a *application) writeMetrics(ctx context.Context, s *settings, sum summary) error {
	path := s.text("metrics-file", a.config.MetricsFile)
	if path == "" {
		return nil
	}
	old := readTextfile(path)
	m := newMetrics()
	m.run(sum)
	for _, d := range sum.Databases {
		m.database(d)
	}
	if err := m.successes(context.WithoutCancel(ctx), s); err != nil {
		m.storeReadable.Set(0)
	}
	return writeTextfile(path, m.registry, old.only(ofPrune))
}

type metrics struct {
	registry *prometheus.Registry

	lastRun, exitStatus, duration, stored, peakRSS, childPeakRSS, omissions, behind, storeReadable prometheus.Gauge

	ok, size, storedOf, ratio, seconds, childRSS, lastSuccess, lastDrill *prometheus.GaugeVec
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	one := func(name, help string) prometheus.Gauge { return gauge(m.registry, name, help) }
	each := func(name, help string) *prometheus.GaugeVec {
		return gauges(m.registry, "database_"+name, help, "database")
	}
	m.lastRun = one("last_run_timestamp_seconds", "When the last run ended, successful or not.")
	m.exitStatus = one("last_run_exit_code", "Exit code of the last run: 0 ok, 3 ok with declared omissions.")
	m.duration = one("last_run_duration_seconds", "How long the last run took.")
	m.stored = one("last_run_stored_bytes", "Bytes of the set that the last run made; 0 when it made none.")
	m.peakRSS = one("last_run_peak_rss_bytes", "Largest resident memory of dbbackup in the last run.")
	m.childPeakRSS = one("last_run_child_peak_rss_bytes", "Largest resident memory of a child process in the last run.")
	m.omissions = one("last_run_omissions", "What the last run declared as not captured.")
	m.behind = one("last_run_stores_behind", "Stores that lack the set that the last run made.")
	m.storeReadable = one("store_readable", "Whether the store's sets could be listed after the last run.")
	m.ok = each("last_run_ok", "Whether the last run captured the database.")
	m.size = each("bytes", "Size of the database at its last capture.")
	m.storedOf = each("stored_bytes", "Bytes stored of the database by the last run.")
	m.ratio = each("compression_ratio", "Stored bytes over the size of the database.")
	m.seconds = each("duration_seconds", "How long the last capture of the database took.")
	m.childRSS = each("child_peak_rss_bytes", "Largest resident memory of pg_dump for the database.")
	m.lastSuccess = each("last_success_timestamp_seconds", "When the newest complete set that holds the database was finished.")
	m.lastDrill = each("last_drill_timestamp_seconds", "When a set that holds the database last passed verify --drill; absent: never.")
	return m
}

func (m *metrics) run(sum summary) {
	m.lastRun.Set(seconds(time.Now()))
	m.exitStatus.Set(float64(sum.ExitCode))
	m.duration.Set(sum.Seconds)
	m.stored.Set(float64(sum.Stored))
	m.peakRSS.Set(float64(sum.Resources.PeakRSSBytes))
	m.childPeakRSS.Set(float64(sum.Resources.ChildPeakRSSBytes))
	m.omissions.Set(float64(len(sum.Omissions)))
	m.behind.Set(float64(len(sum.Behind)))
	m.storeReadable.Set(1)
}

func (m *metrics) database(d databaseSummary) {
	name := label(d.Name)
	if d.Result != "ok" {
		m.ok.WithLabelValues(name).Set(0)
		return
	}
	m.ok.WithLabelValues(name).Set(1)
	m.size.WithLabelValues(name).Set(float64(d.Bytes))
	m.storedOf.WithLabelValues(name).Set(float64(d.StoredBytes))
	m.ratio.WithLabelValues(name).Set(d.Ratio)
	m.seconds.WithLabelValues(name).Set(d.Seconds)
	m.childRSS.WithLabelValues(name).Set(float64(d.PeakRSS))
}

// successes reads from the store when each database was last captured, in
// parts or not: a set with a failure still holds the others.
func (m *metrics) successes(ctx context.Context, s *settings) error {
	newest := newestTimes{map[string]time.Time{}, map[string]time.Time{}}
	keys, err := s.readKeys(ctx)
	if err != nil {
		return err
	}
	err = s.eachStore(ctx, func(place store.Place) error { return newest.read(ctx, place, keys) })
	for name, at := range newest.success {
		m.lastSuccess.WithLabelValues(label(name)).Set(seconds(at))
	}
	for name, at := range newest.drill {
		m.lastDrill.WithLabelValues(label(name)).Set(seconds(at))
	}
	return err
}

// newestTimes are when each database was last captured and drilled, in any store.
type newestTimes struct{ success, drill map[string]time.Time }

func (n newestTimes) read(ctx context.Context, place store.Place, keys backupset.Keys) error {
	entries, err := backupset.List(ctx, place, backupset.WithTrust(keys))
	if err != nil {
		return err
	}
	drills, _, err := backupset.ReadDrills(ctx, place, "") // list says what is wrong with a record
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Status != backupset.StatusComplete {
			continue
		}
		passed, ok := drills.LastOK(e.ID)
		for _, name := range e.Databases {
			if e.Finished.After(n.success[name]) {
				n.success[name] = e.Finished
			}
			if ok && passed.Finished().After(n.drill[name]) {
				n.drill[name] = passed.Finished()
			}
		}
	}
	return nil
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// label makes a name that Prometheus takes: it must be UTF-8.
func label(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }
