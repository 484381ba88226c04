package pgcopy

import (
	"context"
	"fmt"
	"slices"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pgname"
)

// Loss is a damaged or missing chunk, and what it held as the contents say.
type Loss struct {
	Table     string // empty: large objects
	FirstPage uint32 // of a table
	EndPage   uint32 // the first page behind it
	FirstOID  uint32 // of large objects; 0: all of them, because their owners are lost
	LastOID   uint32
	Rows      int64
	Object    string
	Err       error
}

func (l Loss) String() string {
	what := fmt.Sprintf("%d rows of table %s, from its pages %d to %d", l.Rows, l.Table, l.FirstPage, int64(l.EndPage)-1)
	switch {
	case l.Table == "" && l.FirstOID == 0:
		what = fmt.Sprintf("all %d large objects, whose owners are lost", l.Rows)
	case l.Table == "":
		what = fmt.Sprintf("contents of the large objects %d to %d, which are restored empty", l.FirstOID, l.LastOID)
	}
	return fmt.Sprintf("%s: %v", what, l.Err)
}

// Salvage reads every chunk of the tables that wanted chooses, and of the large
// objects where blobs is set, and takes those that are damaged or missing out of
// the contents: a Replay of what is left restores the rest. It returns what is lost,
// in the order of the contents. moved is told of raw bytes, by several goroutines.
func Salvage(ctx context.Context, set *backupset.Set, c *backupset.Contents, wanted func(pgname.Table) bool, blobs bool, moved func(bytes int64)) ([]Loss, error) {
	part := *c
	part.Tables = slices.DeleteFunc(slices.Clone(c.Tables), func(t backupset.ChunkedTable) bool {
		return !wanted(pgname.Table{Schema: t.Schema, Name: t.Name})
	})
	if !blobs {
		part.LargeObjects = nil
	}
	damage, err := Check(ctx, set, &part, moved)
	if err != nil {
		return nil, err
	}
	of := map[*backupset.Chunk]Damage{}
	for _, d := range damage {
		of[d.Chunk] = d // several pieces of a chunk can be damaged: it is lost once
	}
	var losses []Loss
	take := func(chunks []backupset.Chunk, table string) []backupset.Chunk {
		var sound []backupset.Chunk
		for i := range chunks {
			chunk := &chunks[i]
			d, damaged := of[chunk]
			if !damaged {
				sound = append(sound, *chunk)
				continue
			}
			losses = append(losses, Loss{table, chunk.FirstPage, chunk.EndPage, chunk.FirstOID, chunk.LastOID, chunk.Rows, d.Object, d.Err})
		}
		return sound
	}
	for i := range c.Tables {
		t := &c.Tables[i]
		t.Chunks = take(t.Chunks, printable(t))
	}
	lo := c.LargeObjects
	if lo == nil {
		return losses, nil
	}
	if d, damaged := of[&lo.Metadata]; damaged {
		losses, c.LargeObjects = append(losses, Loss{Rows: lo.Count, Object: d.Object, Err: d.Err}), nil
		return losses, nil
	}
	lo.Data = take(lo.Data, "")
	return losses, nil
}
