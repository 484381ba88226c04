package backupset

import (
	"strings"
	"testing"
	"time"
)

// validManifest is the golden set's, read anew for each caller.
func validManifest(t *testing.T) *Manifest {
	t.Helper()
	st := newStore(t)
	must(t, writeSample(t.Context(), st, sampleID))
	return mustOpen(t, st, sampleID).manifest
}

func TestValidate(t *testing.T) {
	m := validManifest(t)
	must(t, m.Validate())
	for _, tt := range []struct {
		want   string // in the error
		change func(*Manifest)
	}{
		{"format is 0", func(m *Manifest) { m.Format = 0 }},
		{"format is 4", func(m *Manifest) { m.Format = 4 }},
		{"how it is encrypted", func(m *Manifest) { m.Format = 3 }},
		{"needs_tool", func(m *Manifest) { m.NeedsTool = "" }},
		{"tool is not named", func(m *Manifest) { m.Tool.Version = "" }},
		{"set id", func(m *Manifest) { m.ID = "../x" }},
		{"set id", func(m *Manifest) { m.ID = strings.Repeat("x", 201) }},
		{"kind", func(m *Manifest) { m.Kind = "other" }},
		{"kind single holds 3", func(m *Manifest) { m.Kind = Single }},
		{"holds nothing", func(m *Manifest) { m.Databases, m.Globals = nil, nil }},
		{"finished", func(m *Manifest) { m.Finished = m.Started.Add(-1) }},
		{"missing", func(m *Manifest) { m.Started = time.Time{} }},
		{"listed twice or out of order", func(m *Manifest) { m.Objects[1] = m.Objects[0] }},
		{"listed twice or out of order", func(m *Manifest) { m.Objects[0], m.Objects[1] = m.Objects[1], m.Objects[0] }},
		{"also a folder", func(m *Manifest) { m.Objects[0].Name = "databases" }},
		{"dot", func(m *Manifest) { m.Objects[0].Name = "../../etc/passwd" }},
		{"empty segment", func(m *Manifest) { m.Objects[0].Name = "/etc/passwd" }},
		{"0x00", func(m *Manifest) { m.Objects[0].Name = "a\x00b" }},
		{"5000 bytes", func(m *Manifest) { m.Objects[0].Name = strings.Repeat("x", 5000) }},
		{"reserved", func(m *Manifest) { m.Objects[0].Name = ManifestName }},
		{"size -1", func(m *Manifest) { m.Objects[0].Bytes = -1 }},
		{"hex", func(m *Manifest) { m.Objects[0].SHA256 = strings.ToUpper(m.Objects[0].SHA256[:63] + "a") }},
		{"hex", func(m *Manifest) { m.Objects[0].SHA256 = "" }},
		{"more than 1000000", func(m *Manifest) { m.Objects = make([]Object, maxObjects+1) }},
		{"more than 20000", func(m *Manifest) { m.Databases = make([]Database, maxDatabases+1) }},
		{"globals name", func(m *Manifest) { m.Globals.Object = "none" }},
		{"globals name", func(m *Manifest) { m.Globals.ServerFiles = []string{"server/none"} }},
		{`"db1" is listed twice`, func(m *Manifest) { m.Databases[1].Name = "db1" }},
		{"the name is empty", func(m *Manifest) { m.Databases[0].Name = "" }},
		{`mode "auto"`, func(m *Manifest) { m.Databases[0].Mode = Auto }},
		{"the dump", func(m *Manifest) { m.Databases[0].Dump = "databases/db10.dir" }},
		{"toc.dat", func(m *Manifest) { m.Databases[1].Dump = "databases/db1" }},
		{"not in objects", func(m *Manifest) { m.Databases[0].Properties = "" }},
		{"not in objects", func(m *Manifest) { m.Databases[0].Create = "databases/db1.create" }},
		{"negative", func(m *Manifest) { m.Databases[0].StoredBytes = -1 }},
		{"negative", func(m *Manifest) { m.Databases[0].EstimatedRows = -2 }},
		{"negative", func(m *Manifest) { m.Databases[0].Resources.PeakRSSBytes = -1 }},
		{"negative", func(m *Manifest) { m.Resources.Seconds = -1 }},
		{"before started", func(m *Manifest) { m.Databases[0].Finished = m.Databases[0].Started.Add(-1) }},
	} {
		t.Run(tt.want, func(t *testing.T) {
			changed := *m
			globals := *m.Globals
			changed.Globals = &globals
			changed.Objects = append([]Object(nil), m.Objects...)
			changed.Databases = append([]Database(nil), m.Databases...)
			tt.change(&changed)
			if err := changed.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}
