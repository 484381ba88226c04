package store

import (
	"fmt"
	"time"
)

// String is the holder as an operator wants to read it.
func (h Holder) String() string {
	return fmt.Sprintf("pid %d on %s since %s (%s)", h.PID, h.Host, h.Since.UTC().Format(time.RFC3339), h.Purpose)
}
