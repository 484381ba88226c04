package storetest

import (
	"errors"
	"testing"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// testLock takes the lock twice in one process. The kinds of store test by
// themselves what happens between processes.
func testLock(t *testing.T, st store.Store) {
	holder := store.Holder{Host: "db-host", PID: 4711, Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Purpose: "backup cluster"}
	for range 2 { // the second round proves that release gave it back
		_, release, err := st.Lock(t.Context(), holder)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = st.Lock(t.Context(), store.Holder{Host: "other"})
		var locked *store.LockedError
		if !errors.As(err, &locked) || !fault.Is(err, fault.Locked) {
			t.Fatalf("second lock: got %v, want a LockedError of kind Locked", err)
		}
		if locked.Holder != holder {
			t.Errorf("the holder is %+v, want %+v", locked.Holder, holder)
		}
		wantKeys(t, st, "")
		if err := errors.Join(release(), release()); err != nil {
			t.Error(err)
		}
	}
}
