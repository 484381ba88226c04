package backupset

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// writeSums writes SHA256SUMS as sha256sum(1) does: manifest.json first, then
// the objects in their order, then those of older sets that are referred to, by
// their paths from within the set's folder. No name needs escaping (CheckName).
func writeSums(w io.Writer, manifestDigest string, m *Manifest) error {
	if _, err := fmt.Fprintf(w, "%s  %s\n", manifestDigest, ManifestName); err != nil {
		return err
	}
	return writeObjectSums(w, m)
}

func writeObjectSums(w io.Writer, m *Manifest) error {
	out := bufio.NewWriter(w)
	for _, o := range m.Objects {
		fmt.Fprintf(out, "%s  %s\n", o.SHA256, o.Name)
	}
	for _, r := range m.References {
		fmt.Fprintf(out, "%s  %s\n", r.SHA256, r.path())
	}
	return out.Flush()
}

// sums is SHA256SUMS on the way: its first line was read, the manifest's.
type sums struct {
	key    string
	in     io.ReadCloser
	digest string // that the manifest has to have
}

// openSums reads the first line of SHA256SUMS. The caller closes it.
func openSums(ctx context.Context, st store.Store, id string) (*sums, error) {
	s := &sums{key: id + "/" + SumsName}
	in, err := st.Open(ctx, s.key)
	if err != nil {
		return nil, damaged(err, "%s", s.key)
	}
	s.in = in
	line := make([]byte, 64+2+len(ManifestName)+1)
	if _, err := io.ReadFull(in, line); err != nil {
		return nil, errors.Join(damaged(err, "read %s", s.key), in.Close())
	}
	s.digest = string(line[:64])
	if checkDigest(s.digest) != nil || string(line[64:]) != "  "+ManifestName+"\n" {
		return nil, errors.Join(damaged(nil, "%s does not begin with the digest of %s", s.key, ManifestName), in.Close())
	}
	return s, nil
}

// compare checks that the rest is exactly what the manifest implies.
func (s *sums) compare(m *Manifest) error {
	if err := writeObjectSums(&matcher{in: s.in}, m); err != nil {
		return damaged(err, "%s does not match %s", s.key, ManifestName)
	}
	if n, err := s.in.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return damaged(nil, "%s is longer than %s implies", s.key, ManifestName)
	}
	return nil
}

// matcher is a writer that fails when it is not given what in holds.
type matcher struct{ in io.Reader }

func (m *matcher) Write(p []byte) (int, error) {
	got := make([]byte, len(p))
	if _, err := io.ReadFull(m.in, got); err != nil {
		return 0, err
	}
	if !bytes.Equal(got, p) {
		return 0, errors.New("other digests or names")
	}
	return len(p), nil
}

// damaged is stored data that is not what was captured. A missing object is
// damage; any other failure of the store stays what it is. cause may be nil.
func damaged(cause error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	const hint = "do not restore from this set: verify it, and use another one or another copy of it"
	switch {
	case cause == nil:
		return fault.New(fault.Integrity, hint, "%s", what)
	case isStoreFailure(cause):
		return fmt.Errorf("%s: %w", what, cause)
	}
	return fault.New(fault.Integrity, hint, "%s: %w", what, cause)
}

// isStoreFailure tells a store that cannot be asked from one that answers with
// damaged data. A read error of the device is damage.
func isStoreFailure(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, fs.ErrPermission) || fault.KindOf(err) != fault.Failed
}
