package backupset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"dbbackup/internal/store"
)

// drillsFolder holds the records of drills, in a folder for each set. It is no
// set's: it is not named like one, and holds neither a manifest nor a mark.
const drillsFolder = "drills"

const (
	drillSuffix = ".json"
	// maxDrillBytes bounds what is read of a record.
	maxDrillBytes = 16 << 20
)

// The results of a drill.
const (
	DrillOK     = "ok"
	DrillFailed = "failed"
)

// Drill is the record of one drill: a set was restored and looked at. It is
// an object of the store beside the set, which is never changed. It holds names
// and counts, and of a server's messages no details, in which keys and rows stand.
type Drill struct {
	Set           string            `json:"set"`
	Result        string            `json:"result"` // DrillOK or DrillFailed
	Started       time.Time         `json:"started"`
	Seconds       float64           `json:"seconds"`
	ServerVersion string            `json:"server_version"` // of the server that it was restored into
	Throwaway     bool              `json:"throwaway"`      // a server of the drill's own
	Host          string            `json:"host"`           // where dbbackup ran
	Tool          Tool              `json:"tool"`
	Databases     []DrilledDatabase `json:"databases"`
	Problems      []DrillProblem    `json:"problems"`
	Notes         []string          `json:"notes"` // what the drill could not look at
}

// DrilledDatabase says what was restored and compared.
type DrilledDatabase struct {
	Name     string  `json:"name"`
	Mode     Mode    `json:"mode"`
	Compared bool    `json:"compared"` // rows and digests; else Rows is 0
	Tables   int64   `json:"tables"`
	Rows     int64   `json:"rows"`
	Indexes  int64   `json:"indexes"` // checked with amcheck
	Seconds  float64 `json:"seconds"`
}

// DrillProblem is something that did not come back as it was.
type DrillProblem struct {
	Database string `json:"database,omitempty"`
	Object   string `json:"object,omitempty"`
	Text     string `json:"text"`
}

// Finished is when the drill ended.
func (d Drill) Finished() time.Time {
	return d.Started.Add(time.Duration(d.Seconds * float64(time.Second)))
}

// Redact leaves out names and words: the record of an encrypted set lies beside it
// in plain.
func (d Drill) Redact() Drill {
	problems := make([]DrillProblem, 0, len(d.Problems))
	for _, p := range d.Problems {
		problems = append(problems, DrillProblem{Database: p.Database, Text: redacted})
	}
	d.Problems, d.Notes = problems, []string{}
	return d
}

// WriteDrill records a drill. It only makes a new object, so it needs no lock.
func WriteDrill(ctx context.Context, st store.Store, d Drill) error {
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return fmt.Errorf("record drill of backup set %s: %w", d.Set, err)
	}
	text = append(text, '\n')
	if err = putDrill(ctx, st, d, text); err != nil && ctx.Err() == nil {
		// A backup that begins at this moment clears up what killed runs left, and
		// an object that is being written looks the same.
		err = putDrill(ctx, st, d, text)
	}
	if err != nil {
		return fmt.Errorf("record drill of backup set %s: %w", d.Set, err)
	}
	return nil
}

// putDrill takes the next free name of the drill's second.
func putDrill(ctx context.Context, st store.Store, d Drill, text []byte) error {
	at := stamp{at: d.Started.UTC().Truncate(time.Second), turn: 1}
	for {
		err := put(ctx, st, drillsFolder+"/"+d.Set+"/"+at.String()+drillSuffix, text)
		if at.turn == lastTurn || !errors.Is(err, store.ErrExist) {
			return err
		}
		at = at.next()
	}
}

// Drills are a store's records by set, oldest first. Sets that were removed may
// be among them.
type Drills map[string][]Drill

// Last is the set's newest drill.
func (d Drills) Last(set string) (Drill, bool) {
	if list := d[set]; len(list) > 0 {
		return list[len(list)-1], true
	}
	return Drill{}, false
}

// LastOK is the set's newest drill that found it sound, whatever newer ones say.
func (d Drills) LastOK(set string) (Drill, bool) {
	for _, one := range slices.Backward(d[set]) {
		if one.Result == DrillOK {
			return one, true
		}
	}
	return Drill{}, false
}

// ReadDrills reads the records of a set, or of all sets where none is named.
// notes say which objects are no records: they are passed over.
func ReadDrills(ctx context.Context, st store.Store, set string) (drills Drills, notes []string, err error) {
	prefix := drillsFolder + "/"
	if set != "" {
		prefix += set + "/"
	}
	var keys []string
	err = st.List(ctx, prefix, func(info store.Info) error {
		keys = append(keys, info.Key)
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list drills: %w", err)
	}
	drills = Drills{}
	for _, key := range keys {
		d, err := readDrill(ctx, st, key)
		switch {
		case ctx.Err() != nil:
			return nil, nil, context.Cause(ctx)
		case errors.Is(err, store.ErrNotExist): // removed meanwhile
		case err != nil:
			notes = append(notes, fmt.Sprintf("passed over %s, which is no record of a drill: %v", key, err))
		default:
			drills[d.Set] = append(drills[d.Set], d)
		}
	}
	for _, list := range drills {
		slices.SortStableFunc(list, func(a, b Drill) int { return a.Started.Compare(b.Started) })
	}
	return drills, notes, nil
}

func readDrill(ctx context.Context, st store.Store, key string) (Drill, error) {
	var d Drill
	in, err := st.Open(ctx, key)
	if err != nil {
		return d, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(untilDone(ctx, in), maxDrillBytes))
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return d, err
	}
	return d, d.check(key)
}

// check compares a record with its place.
func (d Drill) check(key string) error {
	parts := strings.Split(key, "/")
	switch {
	case len(parts) != 3 || parts[1] != d.Set || !strings.HasSuffix(key, drillSuffix):
		return fmt.Errorf("it is of the set %.80q", d.Set)
	case d.Result != DrillOK && d.Result != DrillFailed:
		return fmt.Errorf("its result is %.80q", d.Result)
	case d.Started.IsZero() || d.Seconds < 0:
		return errors.New("its time is missing or negative")
	}
	return nil
}
