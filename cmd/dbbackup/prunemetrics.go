package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dbbackup/internal/retention"
	"dbbackup/internal/store"
)

// pruneMetrics collects what prune did in each store.
type pruneMetrics struct {
	registry *prometheus.Registry

	kept, removed, freed, left *prometheus.GaugeVec
}

func newPruneMetrics() *pruneMetrics {
	registry := prometheus.NewRegistry()
	each := func(name, help string) *prometheus.GaugeVec { return gauges(registry, "prune_"+name, help, "store") }
	return &pruneMetrics{
		registry: registry,
		kept:     each("sets_kept", "Sets that the last prune kept, whatever the reason."),
		removed:  each("sets_removed", "Sets that the last prune removed."),
		freed:    each("removed_bytes", "Bytes of the sets that the last prune removed."),
		left:     each("sets_left", "Sets that the policy does not keep, and that the last prune could not remove."),
	}
}

// add takes in what came of a store; nothing where prune did not come as far as a plan.
func (m *pruneMetrics) add(place store.Place, r retention.Result) {
	if !planned(r) {
		return
	}
	freed := int64(0)
	gone := map[string]bool{}
	for _, id := range r.Deleted {
		gone[id] = true
	}
	for _, d := range r.Delete {
		if gone[d.ID] {
			freed += d.Bytes
		}
	}
	name := label(place.String())
	m.kept.WithLabelValues(name).Set(float64(len(r.Keep)))
	m.removed.WithLabelValues(name).Set(float64(len(r.Deleted)))
	m.freed.WithLabelValues(name).Set(float64(freed))
	m.left.WithLabelValues(name).Set(float64(len(r.Delete) - len(r.Deleted)))
}

// write writes the metrics beside a backup's. When prune last succeeded is, after one
// that failed, what the file says.
func (m *pruneMetrics) write(s *settings, result error) error {
	path := s.text("metrics-file", s.a.config.MetricsFile)
	if path == "" {
		return nil
	}
	old := readTextfile(path)
	now := seconds(time.Now())
	gauge(m.registry, "prune_last_run_timestamp_seconds", "When prune last ended, successful or not.").Set(now)
	gauge(m.registry, "prune_last_run_exit_code", "Exit code of the last prune: 0 ok, 3 a store refused to delete or fell behind, 14 sets stay that somebody must look at.").Set(float64(exitCode(result)))
	const success = "prune_last_success_timestamp_seconds"
	before, known := old.value("dbbackup_" + success)
	if result == nil {
		before, known = now, true
	}
	if known {
		gauge(m.registry, success, "When prune last ended with exit code 0; absent: never.").Set(before)
	}
	return writeTextfile(path, m.registry, old.only(func(name string) bool { return !ofPrune(name) }))
}
