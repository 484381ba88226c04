package pg

import (
	"context"
	"fmt"
	"testing"

	"dbbackup/internal/pgtest"
)

// stream opens a session for COPY streams until the test is over.
func stream(t testing.TB, c *pgtest.Cluster, database string) *Stream {
	t.Helper()
	s, err := resolve(t, paramsOf(c)).ConnectStream(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// counter counts messages and their bytes.
type counter struct{ messages, bytes int }

func (c *counter) Message(piece []byte, last bool) error {
	c.bytes += len(piece)
	if last {
		c.messages++
	}
	return nil
}

// pgx leaves a goroutine that waits for the connection to say something, when a
// statement was slow to be sent. It must not get a part of the stream.
func TestCopyOutIsTheOnlyReader(t *testing.T) {
	s := stream(t, shared.Cluster(t), "postgres")
	for i := range 20 {
		began, ended := make(chan struct{}), make(chan int)
		conn := s.c.Conn()
		go func() {
			close(began)
			n, _ := conn.Read(make([]byte, 8192))
			ended <- n
		}()
		<-began
		var got counter
		rows, err := s.CopyOut(t.Context(), "read", "COPY (SELECT i, repeat('x', 100) FROM generate_series(1, 2000) i) TO STDOUT", &got)
		if err != nil {
			t.Fatal(err)
		}
		if rows != 2000 || got.messages != 2000 {
			t.Fatalf("%d rows and %d messages, want 2000", rows, got.messages)
		}
		if n := <-ended; n != 0 {
			t.Fatalf("another reader took %d bytes", n)
		}
		if numbers, err := s.Int64s(t.Context(), "ask", fmt.Sprintf("SELECT %d", i)); err != nil || numbers[0] != int64(i) {
			t.Fatalf("the session is not in order: %v, %v", numbers, err)
		}
	}
}
