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
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%s  %s\n", manifestDigest, ManifestName)
	for _, o := range m.Objects {
		fmt.Fprintf(out, "%s  %s\n", o.SHA256, o.Name)
	}
	for _, r := range m.References {
		fmt.Fprintf(out, "%s  %s\n", r.SHA256, r.path())
	}
	return out.Flush()
}

// sumsDigest reads the first line of SHA256SUMS: the manifest's digest.
func sumsDigest(ctx context.Context, st store.Store, id string) (string, error) {
	key := id + "/" + SumsName
	in, err := st.Open(ctx, key)
	if err != nil {
		return "", damaged(err, "%s", key)
	}
	defer in.Close()
	line := make([]byte, 64+2+len(ManifestName)+1)
	if _, err := io.ReadFull(in, line); err != nil {
		return "", damaged(err, "read %s", key)
	}
	digest := string(line[:64])
	if checkDigest(digest) != nil || string(line[64:]) != "  "+ManifestName+"\n" {
		return "", damaged(nil, "%s does not begin with the digest of %s", key, ManifestName)
	}
	return digest, nil
}

// compareSums checks that SHA256SUMS is exactly what the manifest implies.
func compareSums(ctx context.Context, st store.Store, id, manifestDigest string, m *Manifest) error {
	key := id + "/" + SumsName
	in, err := st.Open(ctx, key)
	if err != nil {
		return damaged(err, "%s", key)
	}
	defer in.Close()
	same := &matcher{in: in}
	if err := writeSums(same, manifestDigest, m); err != nil {
		return damaged(err, "%s does not match %s", key, ManifestName)
	}
	if n, err := in.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return damaged(nil, "%s is longer than %s implies", key, ManifestName)
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
