package backupset

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// The objects that every set has, and the mark of one that is being written
// or removed.
const (
	ManifestName   = "manifest.json"
	SumsName       = "SHA256SUMS"
	unfinishedName = "UNFINISHED"
)

const (
	maxNameBytes    = 1024
	maxSegmentBytes = 255
	maxIDBytes      = 200
)

// CheckName says why a name may not be an object's, or returns nil. Names are
// safe as paths on any system and need no escaping in SHA256SUMS.
func CheckName(name string) error {
	switch name {
	case ManifestName, SumsName, unfinishedName, macName, signatureName:
		return fmt.Errorf("object name %s is reserved", name)
	}
	if len(name) > maxNameBytes {
		return fmt.Errorf("object name %.40q... has %d bytes, more than %d", name, len(name), maxNameBytes)
	}
	for segment := range strings.SplitSeq(name, "/") {
		if err := checkSegment(segment); err != nil {
			return fmt.Errorf("object name %.80q %w", name, err)
		}
	}
	return nil
}

func checkSegment(segment string) error {
	switch {
	case segment == "":
		return errors.New("has an empty segment")
	case segment[0] == '.':
		return errors.New("has a segment that begins with a dot")
	case len(segment) > maxSegmentBytes:
		return fmt.Errorf("has a segment of %d bytes, more than %d", len(segment), maxSegmentBytes)
	}
	for i := range len(segment) {
		if !isNameByte(segment[i]) {
			return fmt.Errorf("holds the byte %#02x: only letters, digits and . _ - %% + are allowed", segment[i])
		}
	}
	return nil
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._-%+", c) >= 0
}

// CheckID says why an id may not be a set's, or returns nil.
func CheckID(id string) error {
	if len(id) > maxIDBytes {
		return fmt.Errorf("set id %.40q... has %d bytes, more than %d", id, len(id), maxIDBytes)
	}
	if err := checkSegment(id); err != nil {
		return fmt.Errorf("set id %.80q %w", id, err)
	}
	if id == "lost+found" {
		return errors.New("set id lost+found belongs to the file system")
	}
	return nil
}

const (
	stampLayout = "20060102T150405Z"
	// lastTurn is the last suffix. One digit keeps names and ages in one order.
	lastTurn = 9
)

// idPattern splits an id into prefix, time stamp and turn.
var idPattern = regexp.MustCompile(`^(.+)-([0-9]{8}T[0-9]{6}Z)(?:-([2-9]))?$`)

// stamp is the place of an id in the order of its prefix.
type stamp struct {
	at   time.Time
	turn int // 1 to lastTurn
}

// parseID returns false for an id that NewID cannot have made.
func parseID(id string) (prefix string, s stamp, ok bool) {
	m := idPattern.FindStringSubmatch(id)
	if m == nil {
		return "", stamp{}, false
	}
	at, err := time.Parse(stampLayout, m[2])
	if err != nil {
		return "", stamp{}, false
	}
	s = stamp{at: at, turn: 1}
	if m[3] != "" {
		s.turn = int(m[3][0] - '0')
	}
	return m[1], s, true
}

// compare orders stamps by age.
func (s stamp) compare(other stamp) int {
	if c := s.at.Compare(other.at); c != 0 {
		return c
	}
	return s.turn - other.turn
}

// next is the stamp right after s.
func (s stamp) next() stamp {
	if s.turn < lastTurn {
		return stamp{at: s.at, turn: s.turn + 1}
	}
	return stamp{at: s.at.Add(time.Second), turn: 1}
}

func (s stamp) String() string {
	if s.turn == 1 {
		return s.at.Format(stampLayout)
	}
	return fmt.Sprintf("%s-%d", s.at.Format(stampLayout), s.turn)
}

// NewID returns an id for a set that begins now: PREFIX-20260102T030405Z. It
// sorts, by name, after every id of existing (see IDs) with the same prefix.
// Usually that is just the time. When the newest existing id is of the same
// second, or of a later one because a clock was set back, the new id is that
// id's successor: the suffixes -2 to -9, then the next second. So ids say in
// which order sets were made, and only the manifest says when.
//
// The prefix must pass CheckID.
func NewID(prefix string, now time.Time, existing []string) string {
	next := stamp{at: now.UTC().Truncate(time.Second), turn: 1}
	for _, id := range existing {
		if p, s, ok := parseID(id); ok && p == prefix && s.compare(next) >= 0 {
			next = s.next()
		}
	}
	return prefix + "-" + next.String()
}

// Prefix is what an id begins with: those of one prefix are of the same
// database, or of clusters. An id that NewID cannot have made is its own prefix.
func Prefix(id string) string {
	if prefix, _, ok := parseID(id); ok {
		return prefix
	}
	return id
}
