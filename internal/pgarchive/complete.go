package pgarchive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"dbbackup/internal/fault"
)

const notFinished = "pg_dump did not finish this archive, or it was cut afterwards; take another backup set"

// Complete says whether pg_dump finished the archive, without reading its
// data; CheckData does that. size is the file's size in bytes, and not used
// for folders.
//
// A finished custom archive's table of contents was written a second time,
// with the place of every entry's data in it. pg_dump cannot do that into a
// pipe, so an archive that was piped is reported like an interrupted one:
// CheckPiped is for those. In a
// folder each entry with data has a file that is not empty. Errors are
// fault.Integrity and name the entry.
func (t *TOC) Complete(size int64) error {
	if t.Format == Directory {
		return t.completeFolder()
	}
	if err := t.completeOffsets(size); err != nil {
		return err
	}
	return t.completeTail(size)
}

func (t *TOC) completeOffsets(size int64) error {
	for i := range t.Entries {
		e := &t.Entries[i]
		switch {
		case !e.HasData:
		case e.Offset < 0:
			return fault.New(fault.Integrity, notFinished, "the place of %s is not set: the table of contents was not rewritten at the end of the dump", e)
		case e.Offset < t.size:
			return fault.New(fault.Integrity, notFinished, "%s would begin at byte %d, inside the table of contents of %d bytes", e, e.Offset, t.size)
		case e.Offset >= size:
			return fault.New(fault.Integrity, notFinished, "%s begins at byte %d of a file of %d bytes", e, e.Offset, size)
		}
	}
	return nil
}

// completeTail looks at the file's end: the last data block ends with a zero
// length, and where there is no data the table of contents is all there is.
func (t *TOC) completeTail(size int64) error {
	if t.data == 0 && size != t.size {
		return fault.New(fault.Integrity, notFinished, "the file has %d bytes, its table of contents %d, and there is no data", size, t.size)
	}
	if t.data == 0 || t.path == "" {
		return nil
	}
	f, err := os.Open(t.path)
	if err != nil {
		return fmt.Errorf("open archive: %w", err)
	}
	defer f.Close()
	var tail [5]byte
	if _, err := f.ReadAt(tail[:], size-int64(len(tail))); err != nil {
		return fault.New(fault.Integrity, notFinished, "read the end of %s, which should have %d bytes: %w", t.path, size, err)
	}
	if tail != [5]byte{} {
		return fault.New(fault.Integrity, notFinished, "%s does not end with the end of a data block", t.path)
	}
	return nil
}

func (t *TOC) completeFolder() error {
	root, err := t.root(t.path)
	if err != nil {
		return err
	}
	defer root.Close()
	for i := range t.Entries {
		e := &t.Entries[i]
		if !e.HasData {
			continue
		}
		if err := t.completeFile(root, e); err != nil {
			return fault.New(fault.Integrity, notFinished, "data of %s: %w", e, err)
		}
	}
	return nil
}

func (t *TOC) completeFile(root *os.Root, e *Entry) error {
	if e.File == "" {
		return errors.New("the table of contents names no file")
	}
	if e.Desc == "BLOBS" {
		return eachLargeObject(root, e.File, func(_ uint32, file string) error {
			_, err := findFile(root, file)
			return err
		})
	}
	found, err := findFile(root, e.File)
	if err == nil && found.size == 0 {
		return fmt.Errorf("%s is empty", found.name)
	}
	return err
}

// dataFile is a file of a directory archive as it was found.
type dataFile struct {
	name        string
	compression string
	size        int64
}

// findFile looks for a data file by the name in the table of contents, which
// leaves the compression's suffix out.
func findFile(root *os.Root, name string) (dataFile, error) {
	for _, form := range [...]struct{ suffix, compression string }{
		{"", "none"}, {".gz", "gzip"}, {".lz4", "lz4"}, {".zst", "zstd"},
	} {
		info, err := root.Lstat(name + form.suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return dataFile{}, err
		}
		found := dataFile{name + form.suffix, form.compression, info.Size()}
		if !info.Mode().IsRegular() {
			return found, fmt.Errorf("%s is no regular file", found.name)
		}
		if found.size == 0 && found.compression != "none" {
			return found, fmt.Errorf("%s is empty", found.name)
		}
		return found, nil
	}
	return dataFile{}, fmt.Errorf("there is no file %s", name)
}

// root opens the archive's folder so that nothing outside of it can be read.
func (t *TOC) root(path string) (*os.Root, error) {
	if path == "" {
		return nil, errors.New("the table of contents was not opened from a folder, so its files cannot be looked at")
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open archive folder: %w", err)
	}
	return root, nil
}

// eachLargeObject calls fn for each line "OID file" of a list of large objects.
func eachLargeObject(root *os.Root, list string, fn func(oid uint32, file string) error) error {
	f, err := root.Open(list)
	if err != nil {
		return fmt.Errorf("list of large objects: %w", err)
	}
	defer f.Close()
	lines := newLineReader(f)
	count := 0
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) && count > 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", list, err)
		}
		count++
		oid, file, err := parseLargeObject(line)
		if err != nil {
			return fmt.Errorf("%s line %d: %w", list, count, err)
		}
		if err := fn(oid, file); err != nil {
			return fmt.Errorf("large object %d: %w", oid, err)
		}
	}
}

func parseLargeObject(line []byte) (oid uint32, file string, err error) {
	if _, err := fmt.Fscanf(bytes.NewReader(line), "%d %s", &oid, &file); err != nil {
		return 0, "", fmt.Errorf("%q is not an OID and a file: %w", line, err)
	}
	if file != fmt.Sprintf("blob_%d.dat", oid) {
		return 0, "", fmt.Errorf("file %q is not that of large object %d", file, oid)
	}
	return oid, file, nil
}
