package pgtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// openTemplate makes a cluster that never runs, to be copied: a tenth of the
// work of initdb.
func openTemplate() (*Cluster, error) {
	bin, err := FindBinDir(0)
	if err != nil {
		return nil, err
	}
	c, err := newCluster(config{}, bin)
	if err != nil {
		return nil, err
	}
	if err := c.initdb(nil); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// copyData takes a template's data. The cluster has the template's password
// until takePassword.
func (c *Cluster) copyData(template *Cluster) error {
	if out, err := exec.Command("cp", "--archive", template.DataDir, c.DataDir).CombinedOutput(); err != nil { //nolint:gosec // two folders of ours
		return fmt.Errorf("copy %s: %w: %s", template.DataDir, err, out)
	}
	c.Password = template.Password
	return c.changeIdentifier()
}

// takePassword gives the superuser another password.
func (c *Cluster) takePassword(password string) error {
	secret, err := verifier(password)
	if err != nil {
		return err
	}
	if err := c.TryExec("postgres", "ALTER ROLE "+Quote(c.User)+" PASSWORD '"+strings.ReplaceAll(secret, "'", "''")+"'"); err != nil {
		return err
	}
	c.Password = password
	return nil
}

// changeIdentifier gives data that initdb made a system identifier of its own, in
// the two places that hold it: pg_control, where it comes first (ControlFileData
// in catalog/pg_control.h) and a CRC-32C of all before it comes last, and the
// header of the only WAL segment (XLogLongPageHeaderData in
// access/xlog_internal.h).
func (c *Cluster) changeIdentifier() error {
	control := filepath.Join(c.DataDir, "global", "pg_control")
	data, err := os.ReadFile(control)
	if err != nil {
		return err
	}
	end := checksumAt(data)
	if end < 0 {
		return fmt.Errorf("change the system identifier in %s: no checksum was found", control)
	}
	segments, err := filepath.Glob(filepath.Join(c.DataDir, "pg_wal", strings.Repeat("[0-9A-F]", 24)))
	if err != nil || len(segments) != 1 {
		return fmt.Errorf("change the system identifier in %s: %d WAL segments, want 1", c.DataDir, len(segments))
	}
	identifier := binary.NativeEndian.AppendUint64(nil, uint64(rand.Int64())) //nolint:gosec // no secret, and SQL shows it as a bigint
	copy(data, identifier)
	binary.NativeEndian.PutUint32(data[end:], crc32.Checksum(data[:end], castagnoli))
	return errors.Join(writeAt(control, data, 0), writeAt(segments[0], identifier, 24))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksumAt finds where the checksum of a pg_control stands, which every major
// version has elsewhere; -1 where it does not.
func checksumAt(data []byte) int {
	for at := 8; at+4 <= len(data); at += 4 {
		if binary.NativeEndian.Uint32(data[at:]) == crc32.Checksum(data[:at], castagnoli) {
			return at
		}
	}
	return -1
}

func writeAt(path string, data []byte, offset int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, offset)
	return errors.Join(err, f.Close())
}
