package restore

import (
	"context"
	"slices"
	"strings"
	"testing"

	"dbbackup/internal/pg"
	"dbbackup/internal/pgtest"
)

func TestSettingsThatTheServerDoesNotKnowAreLeftOutAndNamed(t *testing.T) {
	c := pgtest.Start(t)
	params, err := pg.ParseParams(c.URI("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := pg.Resolve(context.Background(), pg.Options{Params: params, Env: []string{"HOME=" + t.TempDir()}, Application: "test"})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := endpoint.Connect(context.Background(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	p := &preparation{conn: conn}
	s := Step{Name: "app", properties: pg.Database{Settings: []pg.Setting{
		{Name: "work_mem", Value: "8MB"}, {Name: "default_with_oids", Value: "on"},
		{Name: "TimeZone", Value: "UTC"}, {Name: "app.tenant", Value: "7"},
	}}}
	if err := p.dropUnknownSettings(context.Background(), &s); err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, setting := range s.properties.Settings {
		kept = append(kept, setting.Name)
	}
	if want := []string{"work_mem", "TimeZone", "app.tenant"}; !slices.Equal(kept, want) {
		t.Errorf("kept %q, want %q", kept, want)
	}
	if len(p.Omitted) != 1 || !strings.Contains(p.Omitted[0], "default_with_oids") || !strings.Contains(p.Omitted[0], "app") {
		t.Errorf("omitted: got %q, want default_with_oids of app", p.Omitted)
	}
}
