package scripts

import (
	"strings"
	"testing"
)

// Both scripts install and download: what is wrong with the command line must
// be said before that.
func TestBenchAndMatrixRefuseWrongUsage(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"bench: unknown argument", nil, []string{"./bench.sh", "--fast"}, "unknown argument --fast"},
		{"bench: value is missing", nil, []string{"./bench.sh", "--plain-runs"}, "--plain-runs needs a value"},
		{"bench: unknown scale", []string{"BENCH_SCALE=huge"}, []string{"./bench.sh"}, "BENCH_SCALE is huge"},
		{"matrix: unknown argument", nil, []string{"./matrix.sh", "15"}, "unknown argument 15"},
		{"matrix: value is missing", nil, []string{"./matrix.sh", "--cache"}, "--cache needs a value"},
		{"matrix: version in no release", nil, []string{"./matrix.sh", "--versions", "15 16"}, "no known Debian release holds PostgreSQL 16"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := run(t, tt.env, tt.args[0], tt.args[1:]...)
			if got.code != 2 || !strings.Contains(got.stderr, tt.want) || got.stdout != "" {
				t.Errorf("got exit code %d, stdout %q, stderr %q; want 2 and %q", got.code, got.stdout, got.stderr, tt.want)
			}
		})
	}
}

func TestBenchAndMatrixShowTheirUsage(t *testing.T) {
	for _, script := range []string{"./bench.sh", "./matrix.sh"} {
		got := run(t, nil, script, "--help")
		if got.code != 0 || !strings.Contains(got.stdout, "Usage:") || !strings.Contains(got.stdout, "Exit codes:") {
			t.Errorf("%s --help: exit code %d, stdout %q", script, got.code, got.stdout)
		}
	}
}
