package main

import (
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"dbbackup/internal/fault"
)

// textfile is what a Prometheus textfile holds, by name. backup and prune may be
// given the same one: each replaces what is its own.
type textfile map[string]*dto.MetricFamily

// readTextfile reads what is there. A file that makes no sense holds nothing.
func readTextfile(path string) textfile {
	in, err := os.Open(path) //nolint:gosec // the user names it
	if err != nil {
		return nil
	}
	defer in.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(in)
	if err != nil {
		return nil
	}
	return families
}

// ofPrune are the names of prune's metrics.
func ofPrune(name string) bool { return strings.HasPrefix(name, "dbbackup_prune_") }

// only returns some of the metrics.
func (f textfile) only(wanted func(name string) bool) prometheus.Gatherer {
	var list []*dto.MetricFamily
	for name, family := range f {
		if wanted(name) {
			list = append(list, family)
		}
	}
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return list, nil })
}

// value is that of a gauge without labels; false where it is not there.
func (f textfile) value(name string) (float64, bool) {
	if metrics := f[name].GetMetric(); len(metrics) == 1 && metrics[0].GetGauge() != nil {
		return metrics[0].GetGauge().GetValue(), true
	}
	return 0, false
}

// writeTextfile replaces the file in one rename.
func writeTextfile(path string, from ...prometheus.Gatherer) error {
	if err := prometheus.WriteToTextfile(path, prometheus.Gatherers(from)); err != nil {
		return fault.New(fault.Failed, "the folder must exist and be writable", "metrics file %s: %w", path, err)
	}
	return nil
}

func gauge(in *prometheus.Registry, name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "dbbackup_" + name, Help: help})
	in.MustRegister(g)
	return g
}

func gauges(in *prometheus.Registry, name, help, label string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "dbbackup_" + name, Help: help}, []string{label})
	in.MustRegister(g)
	return g
}
