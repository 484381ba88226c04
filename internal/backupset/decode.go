package backupset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits of reading a manifest. They are checked as its bytes arrive, before
// anything of that size is held in memory.
const (
	maxManifestBytes = 256 << 20
	maxValueBytes    = 16 << 20 // one top-level value, or one element of a list
	maxCommas        = 4 << 20  // about as many as there are JSON values
	maxBlankBytes    = 64 << 10 // the decoder looks at a run of white space again with every read
)

var errTooLarge = errors.New("the manifest is larger than any that dbbackup writes")

// guard passes a manifest's bytes on until they break a limit.
type guard struct {
	in     io.Reader
	total  int64
	commas int
	value  int64 // where the current value began
	blank  int   // length of the run of white space that was read last
}

// Read hands on little at a time, so that the decoder is never far ahead of
// the value it works on.
func (g *guard) Read(p []byte) (int, error) {
	n, err := g.in.Read(p[:min(len(p), 64<<10)])
	g.total += int64(n)
	g.commas += bytes.Count(p[:n], []byte(","))
	if g.blank += n; len(bytes.TrimLeft(p[:n], " \t\r\n")) > 0 {
		g.blank = 0
	}
	if g.total > maxManifestBytes || g.commas > maxCommas || g.total-g.value > maxValueBytes || g.blank > maxBlankBytes {
		return 0, errTooLarge
	}
	return n, err
}

// decoder reads a manifest value by value.
type decoder struct {
	guard guard
	json  *json.Decoder
	seen  map[string]bool
}

// newerError says that a manifest is of a format this package does not know.
type newerError struct {
	format    int
	needsTool string
}

func (e *newerError) Error() string {
	return fmt.Sprintf("format %d needs dbbackup >= %s", e.format, e.needsTool)
}

// decodeManifest reads a manifest to its end. A newer format is a newerError,
// known from the first two fields alone: those are the same in every format.
// Unknown fields are ignored.
func decodeManifest(in io.Reader) (*Manifest, error) {
	d := &decoder{guard: guard{in: in}, seen: map[string]bool{}}
	d.json = json.NewDecoder(&d.guard)
	m := &Manifest{}
	if err := d.head(m); err != nil {
		return nil, err
	}
	for d.json.More() {
		if err := d.field(m); err != nil {
			return nil, err
		}
	}
	return m, d.end()
}

// head reads {"format": n, "needs_tool": s.
func (d *decoder) head(m *Manifest) error {
	if token, err := d.json.Token(); err != nil || token != json.Delim('{') {
		return errors.Join(errors.New("is not a JSON object"), err)
	}
	for _, want := range []string{"format", "needs_tool"} {
		if key, err := d.json.Token(); err != nil || key != want {
			return errors.Join(fmt.Errorf("does not begin with the fields format and needs_tool"), err)
		}
		d.seen[want] = true
		if err := d.value(m, want); err != nil {
			return err
		}
	}
	if m.Format > Version {
		return &newerError{format: m.Format, needsTool: m.NeedsTool}
	}
	return nil
}

func (d *decoder) field(m *Manifest) error {
	token, err := d.json.Token()
	if err != nil {
		return err
	}
	key := strings.ToLower(fmt.Sprint(token)) // encoding/json ignores case, so two spellings are one field
	if d.seen[key] {
		return fmt.Errorf("the field %.40q is there twice", key)
	}
	d.seen[key] = true
	switch key {
	case "objects":
		m.Objects, err = list[Object](d, key, maxObjects)
	case "references":
		m.References, err = list[Reference](d, key, maxObjects)
	case "databases":
		m.Databases, err = list[Database](d, key, maxDatabases)
	case "omissions":
		m.Omissions, err = list[Omission](d, key, maxObjects)
	case "failures":
		m.Failures, err = list[Failure](d, key, maxObjects)
	default:
		err = d.value(m, key)
	}
	return err
}

// isASCII is false for names that encoding/json takes for a known field by
// Unicode case folding, past the limits of the lists.
func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

// value decodes one top-level value as the manifest's field of that name.
func (d *decoder) value(m *Manifest, key string) error {
	d.guard.value = d.json.InputOffset()
	var raw json.RawMessage
	if err := d.json.Decode(&raw); err != nil {
		return fmt.Errorf("field %.40q: %w", key, err)
	}
	if !isASCII(key) {
		return nil
	}
	name, err := json.Marshal(key)
	if err != nil {
		return err
	}
	whole := bytes.Join([][]byte{[]byte("{"), name, []byte(":"), raw, []byte("}")}, nil)
	if err := json.Unmarshal(whole, m); err != nil {
		return fmt.Errorf("field %.40q: %w", key, err)
	}
	return nil
}

// list decodes an array element by element, at most limit of them.
func list[T any](d *decoder, key string, limit int) ([]T, error) {
	if token, err := d.json.Token(); err != nil || token != json.Delim('[') {
		return nil, errors.Join(fmt.Errorf("field %s is not a list", key), err)
	}
	all := []T{}
	for d.json.More() {
		if len(all) == limit {
			return nil, fmt.Errorf("field %s has more than %d entries: %w", key, limit, errTooLarge)
		}
		d.guard.value = d.json.InputOffset()
		var one T
		if err := d.json.Decode(&one); err != nil {
			return nil, fmt.Errorf("field %s, entry %d: %w", key, len(all), err)
		}
		all = append(all, one)
	}
	_, err := d.json.Token()
	return all, err
}

// end makes sure that nothing follows the object.
func (d *decoder) end() error {
	if _, err := d.json.Token(); err != nil {
		return err
	}
	if _, err := d.json.Token(); !errors.Is(err, io.EOF) {
		return errors.Join(errors.New("bytes follow the end of the manifest"), err)
	}
	return nil
}
