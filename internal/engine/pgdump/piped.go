package pgdump

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"dbbackup/internal/backupset"
	"dbbackup/internal/child"
	"dbbackup/internal/fault"
	"dbbackup/internal/pgarchive"
)

// pipeArchive runs a pg_dump that writes a custom archive into its standard
// output and makes an object of it, for sets whose objects are no files of this
// machine. stored counts its bytes on the way.
func pipeArchive(ctx context.Context, c child.Command, set *backupset.Writer, name string, expect int64, stored *atomic.Int64) (usage child.Usage, o backupset.Object, err error) {
	object, err := set.Object(ctx, name, expect)
	if err != nil {
		return usage, o, err
	}
	defer func() { err = errors.Join(err, object.Abort()) }() // after a commit this does nothing
	usage, err = child.Pipe(ctx, c, func(pipe io.Reader) error {
		return checkedArchive(&counter{w: object, n: stored}, pipe)
	})
	if err != nil {
		return usage, o, err
	}
	o, err = object.Commit()
	return usage, o, err
}

// checkedArchive copies an archive and proves on the way that it is whole:
// exit status 0 proves nothing about what came (FACTS: exit codes and archives).
func checkedArchive(to io.Writer, from io.Reader) error {
	in, out := io.Pipe()
	checked := make(chan error, 1)
	go func() {
		err := pgarchive.CheckPiped(in, pgarchive.WithoutSQL(), pgarchive.OnlyData())
		in.CloseWithError(errOr(err, errReadEnough)) //nolint:errcheck // it never fails
		checked <- err
	}()
	_, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(to, out)}, struct{ io.Reader }{from}, make([]byte, 256<<10))
	out.CloseWithError(err) //nolint:errcheck // it never fails; nil is the end
	checkErr := <-checked
	if err != nil && (checkErr == nil || !errors.Is(err, checkErr)) {
		return err // of the pipe or of the store; the check only saw it as an early end
	}
	if checkErr != nil {
		// %v: the kind of the error is that of damage in a store, and nothing is stored.
		return fault.New(fault.Failed, "", "the archive that pg_dump wrote is not whole: %v", checkErr)
	}
	return nil
}

var errReadEnough = errors.New("the archive has ended")

func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
