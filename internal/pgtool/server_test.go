package pgtool

import (
	"path/filepath"
	"testing"
)

func TestServerTakesThatMajorVersionOnly(t *testing.T) {
	s, root := host(t)
	for _, v := range []string{"13.4", "15.18"} { // of 17 there are only clients
		install(t, filepath.Join(root, v[:2], "bin"), v, Initdb, Postgres)
	}
	elsewhere := install(t, filepath.Join(root, "else[where]"), "16.3", Initdb, Postgres)
	clients := filepath.Join(root, "17", "bin")
	tests := []struct {
		name  string
		s     Search
		major int
		want  string
	}{
		{"installed", s, 15, filepath.Join(root, "15", "bin")},
		{"in BinDir", Search{BinDir: elsewhere, Roots: s.Roots}, 16, elsewhere},
		{"in PATH", Search{Path: "relative:" + elsewhere, Roots: s.Roots}, 16, elsewhere},
		{"BinDir of another version", Search{BinDir: elsewhere, Roots: s.Roots}, 13, filepath.Join(root, "13", "bin")},
		{"BinDir of clients", Search{BinDir: clients, Roots: s.Roots}, 13, filepath.Join(root, "13", "bin")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.s.Server(t.Context(), tt.major)
			if err != nil || got.Dir != tt.want || got.Version.Major != tt.major || got.Initdb != filepath.Join(tt.want, Initdb) {
				t.Errorf("got %+v, %v, want that in %s", got, err, tt.want)
			}
		})
	}
}

func TestAMissingServerIsRefused(t *testing.T) {
	s, root := host(t)
	fifteen := install(t, filepath.Join(root, "15", "bin"), "15.18", Initdb, Postgres)
	s.BinDir = filepath.Join(root, "17", "bin")
	_, err := s.Server(t.Context(), 17)
	refused(t, err, []string{"PostgreSQL 17", s.BinDir, s.Roots[0], "PATH", fifteen + " holds 15.18"}, "postgresql-17")
	refused(t, err, nil, "--drill-target")
	_, err = s.ServerIn(t.Context(), s.BinDir)
	refused(t, err, []string{filepath.Join(s.BinDir, Initdb), "no such program"}, "directory")
}

func TestNumIsTheServersNumber(t *testing.T) {
	for _, num := range []int{90600, 100000, 150018, 180001} {
		if got := VersionOf(num).Num(); got != num {
			t.Errorf("got %d, want %d", got, num)
		}
	}
}
