package drill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
)

// dropTime bounds how long dropping one drill's database may take.
const dropTime = time.Minute

// drop drops a drill's database on a server that is not the drill's own, also
// when ctx has ended: under its name, and under the one that it bore while it
// was filled. Both are of this drill alone.
func drop(ctx context.Context, endpoint *pg.Endpoint, p planned) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), dropTime, fmt.Errorf("still there after %s", dropTime))
	defer cancel()
	conn, err := endpoint.Connect(ctx, endpoint.Database)
	if err != nil {
		return undropped(endpoint, p.as, err)
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	for _, name := range append(p.plan.Temporary(), p.as) {
		if one := dropOne(ctx, endpoint, conn, name); one != nil {
			err = errors.Join(err, undropped(endpoint, name, one))
		}
	}
	return err
}

func undropped(endpoint *pg.Endpoint, name string, err error) error {
	return fault.New(fault.KindOf(err), fmt.Sprintf("drop database %s on %s by hand, if it is there", name, endpoint),
		"drop database %s of the drill: %w", name, err)
}

func dropOne(ctx context.Context, endpoint *pg.Endpoint, conn *pg.Conn, name string) error {
	existing, exists, err := conn.DatabaseNamed(ctx, name)
	if err != nil || !exists {
		return err
	}
	if existing.Template {
		if err := conn.Exec(ctx, "make it no template", fmt.Sprintf("ALTER DATABASE %s IS_TEMPLATE false", pgname.Ident(name))); err != nil {
			return err
		}
	}
	subscriptions, err := conn.Subscriptions(ctx, name)
	if err == nil && len(subscriptions) > 0 {
		err = dropSubscriptions(ctx, endpoint, name)
	}
	if err == nil {
		err = conn.EndSessions(ctx, name)
	}
	if err != nil {
		return err
	}
	return conn.Exec(ctx, "drop it", "DROP DATABASE "+pgname.Ident(name))
}

// dropSubscriptions: those that the restore made never reached their publishers.
func dropSubscriptions(ctx context.Context, endpoint *pg.Endpoint, name string) error {
	inside, err := endpoint.Connect(ctx, name)
	if err != nil {
		return err
	}
	return errors.Join(inside.DropSubscriptions(ctx), inside.Close(ctx))
}
