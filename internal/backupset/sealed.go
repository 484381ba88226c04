package backupset

import (
	"errors"
	"fmt"
	"strings"

	"dbbackup/internal/fault"
	"dbbackup/internal/seal"
)

// Of an encrypted set every file whose name ends in .age decrypts to the file of
// the set that the name without it says: all of them together are a plain set.
const sealedSuffix = ".age"

// What beside the files of the plain set lies in an encrypted one.
const (
	// macName and signatureName authenticate manifest.json.
	macName       = ManifestName + ".mac"
	signatureName = ManifestName + ".sig"
	// keysFolder has the set's key, wrapped to its recipients; it alone changes
	// when they do.
	keysFolder = "keys"
	// referencesKey decrypts to the keys of the older sets that are referred to.
	referencesKey = "references.key"
	// originName is a scratch object: the signature of who began the set.
	originName = "origin.sig"
)

// redacted stands in an envelope where the manifest has names or words.
const redacted = "[encrypted]"

// Sealed says of an encrypted set what is no secret.
type Sealed struct {
	Recipient string `json:"recipient"`        // the set's own: all in it is encrypted to it
	Signer    string `json:"signer,omitempty"` // fingerprint of the key that signed the manifest
}

// Keys are what a reader of sets has. The zero value has nothing.
type Keys struct {
	Ring *seal.Keyring // opens encrypted sets
	// Trusted are the keys of those whose sets count. Where there are any, a set
	// that none of them signed is refused.
	Trusted seal.Trusted
}

func (k Keys) trusts() bool { return len(k.Trusted) > 0 }

// Option is how a set is opened.
type Option func(*Keys)

// WithKeys opens sets with keys: what is encrypted is decrypted, and what is not
// signed by who is trusted is fault.Integrity.
func WithKeys(k Keys) Option { return func(to *Keys) { *to = k } }

// WithTrust is WithKeys without what decrypts: a set's envelope is enough.
func WithTrust(k Keys) Option { return func(to *Keys) { to.Trusted = k.Trusted } }

func keysOf(options []Option) Keys {
	var k Keys
	for _, option := range options {
		option(&k)
	}
	return k
}

// logicalName is the name within the plain set of a file of an encrypted one.
func logicalName(stored string) string { return strings.TrimSuffix(stored, sealedSuffix) }

// isKeyFile tells what `key rotate` changes from what never changes.
func isKeyFile(name string) bool { return strings.HasPrefix(name, keysFolder+"/") }

// beside are the files of an encrypted set that its manifest does not name.
func beside(name string) bool {
	return name == macName || name == signatureName || isKeyFile(name)
}

// checkSealed: an envelope is of format 3 and names encrypted files only; no
// other manifest is of format 3.
func (m *Manifest) checkSealed(index objectIndex) error {
	if m.Sealed == nil {
		if m.Format > plainVersion {
			return fmt.Errorf("format %d is of encrypted sets, and it does not say how it is encrypted", m.Format)
		}
		return nil
	}
	switch {
	case m.Format <= plainVersion:
		return fmt.Errorf("a set of format %d cannot be encrypted", m.Format)
	case m.Globals != nil:
		return errors.New("an encrypted set does not say what globals it has")
	case !strings.HasPrefix(m.Sealed.Recipient, "age1"):
		return errors.New("the recipient of the set is missing")
	case m.Sealed.Signer != "" && checkDigest(m.Sealed.Signer) != nil:
		return errors.New("the signer is not named by a fingerprint")
	case index != nil && !index.has(ManifestName+sealedSuffix):
		return fmt.Errorf("%s is not in objects", ManifestName+sealedSuffix)
	}
	for _, o := range m.Objects {
		if !strings.HasSuffix(o.Name, sealedSuffix) || isKeyFile(o.Name) {
			return fmt.Errorf("object %.80q is not encrypted", o.Name)
		}
	}
	for _, r := range m.References {
		if !strings.HasSuffix(r.Name, sealedSuffix) {
			return fmt.Errorf("reference %.80q is not encrypted", r.path())
		}
	}
	return nil
}

// envelope is the part of a manifest that an encrypted set shows: what list,
// prune and the estimate of a set's size need. Its JSON is read as a Manifest.
type envelope struct {
	Format     int                `json:"format"`
	NeedsTool  string             `json:"needs_tool"`
	Manifest                      // shadowed where a field is declared here
	Host       string             `json:"host,omitempty"`
	Server     envelopeServer     `json:"server"`
	Databases  []envelopeDatabase `json:"databases"`
	Globals    *Globals           `json:"globals,omitempty"`
	Resources  *Resources         `json:"resources,omitempty"`
	References []Reference        `json:"references,omitempty"`
}

type envelopeServer struct {
	Host             string `json:"host,omitempty"` // only where there is no identifier to know the server by
	Port             int    `json:"port,omitempty"`
	Version          string `json:"version"`
	VersionNum       int    `json:"version_num"`
	SystemIdentifier string `json:"system_identifier,omitempty"`
	Standby          bool   `json:"standby"`
}

type envelopeDatabase struct {
	Name             string     `json:"name"`
	Mode             Mode       `json:"mode"`
	Selection        *Selection `json:"selection,omitempty"`
	DatabaseBytes    int64      `json:"database_bytes"`
	StoredBytes      int64      `json:"stored_bytes"`
	CompressionRatio float64    `json:"compression_ratio"`
	UnreadableTables int64      `json:"unreadable_tables,omitempty"`
}

// envelopeOf keeps of a complete manifest what may be read by anybody.
func envelopeOf(m *Manifest, sealed Sealed, objects []Object, references []Reference) *envelope {
	e := &envelope{Format: Version, NeedsTool: needsTool(Version), Manifest: *m, Databases: []envelopeDatabase{}, References: references}
	e.Sealed, e.Objects = &sealed, objects
	e.Server = envelopeServer{
		Version: m.Server.Version, VersionNum: m.Server.VersionNum,
		SystemIdentifier: m.Server.SystemIdentifier, Standby: m.Server.Standby,
	}
	if m.Server.SystemIdentifier == "" {
		e.Server.Host, e.Server.Port = m.Server.Host, m.Server.Port
	}
	for i := range m.Databases {
		d := &m.Databases[i]
		e.Databases = append(e.Databases, envelopeDatabase{
			d.Name, d.Mode, d.Selection.redact(), d.DatabaseBytes, d.StoredBytes, d.CompressionRatio, d.UnreadableTables,
		})
	}
	e.Omissions, e.Failures = []Omission{}, []Failure{}
	for _, o := range m.Omissions {
		e.Omissions = append(e.Omissions, Omission{Database: o.Database, Object: redacted, Reason: redacted, Asked: o.Asked})
	}
	for _, f := range m.Failures {
		e.Failures = append(e.Failures, Failure{Database: f.Database, Error: redacted})
	}
	return e
}

// redact keeps whether tables were chosen, or only excluded.
func (s *Selection) redact() *Selection {
	switch {
	case s == nil:
		return nil
	case s.Chosen():
		return &Selection{Tables: []string{redacted}, Selected: []string{}}
	}
	return &Selection{ExcludeTables: []string{redacted}, Selected: []string{}}
}

// errLocked is what reading an encrypted set without a key comes to.
func errLocked(id string) error {
	return fault.New(fault.WrongKey, "--identity FILE, --keys DIR or --passphrase-file FILE", "backup set %s is encrypted, and no key was given", id)
}
