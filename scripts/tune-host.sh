#!/usr/bin/env bash
#
# tune-host.sh: compare a database host's settings with what suits PostgreSQL
# and its backups, apply them, and take them back. Works without dbbackup.
#
# Usage:
#   tune-host.sh --check  [options]   print a table; exit 0 all fine, 1 something differs
#   tune-host.sh --apply  [options]   save what is, then set what differs (needs root)
#   tune-host.sh --revert [options]   restore what the first --apply found (needs root)
#
# Options:
#   --postgres-user NAME   whose nofile and nproc limits are meant (default postgres)
#   --data-dir DIR         the server's data directory; its file system gets noatime.
#                          Repeatable. Without it no mount is looked at.
#   --only LIST            of sysctl,limits,disk,mount: nothing else is looked at
#   --skip KEY             leave one key alone, e.g. --skip vm.overcommit_memory. Repeatable.
#   --dry-run              with --apply or --revert: say what would be done, do nothing
#   --root DIR             work on the tree below DIR instead of the host (for tests):
#                          nothing is mounted and udev is not told
#   -h, --help             this text
#
# Writes /etc/sysctl.d/90-dbbackup.conf, /etc/security/limits.d/90-dbbackup.conf,
# /etc/udev/rules.d/90-dbbackup.rules and /var/lib/dbbackup/tune-host.saved, which
# holds the previous values. Applying again keeps the values saved first. Values
# that are better than wanted are left alone, and so is vm.overcommit_memory=2.
# Never touches /etc/fstab, and never sets data=writeback. See docs/host-tuning.md.
#
# Exit codes: 0 ok, 1 something differs or did not work, 2 usage, 14 not root.

set -euo pipefail

readonly sysctl_file=/etc/sysctl.d/90-dbbackup.conf
readonly limits_file=/etc/security/limits.d/90-dbbackup.conf
readonly udev_file=/etc/udev/rules.d/90-dbbackup.rules
readonly saved_file=/var/lib/dbbackup/tune-host.saved

readonly -A sysctl_wanted=(
  [vm.overcommit_memory]=1
  [vm.swappiness]=10
  [vm.dirty_ratio]=10
  [vm.dirty_background_ratio]=5
)
readonly -A sysctl_reason=(
  [vm.overcommit_memory]='forks are not refused; the manual recommends 2, fit for dedicated hosts'
  [vm.swappiness]='keeps the server in memory while a dump fills the cache'
  [vm.dirty_ratio]='slows writers early instead of stopping them for seconds'
  [vm.dirty_background_ratio]='leaves checkpoints and fsync little to write'
)
readonly sysctl_keys=(vm.overcommit_memory vm.swappiness vm.dirty_ratio vm.dirty_background_ratio)
readonly -A limit_wanted=([nofile]=65536 [nproc]=32768)
readonly -A limit_reason=(
  [nofile]='a dump of thousands of tables opens many files'
  [nproc]='connections, parallel workers and the dump count together'
)

mode=''
root=''
user=postgres
dry_run=no
only=sysctl,limits,disk,mount
data_dirs=()
skipped=()
differs=0
failed=0

say() { printf '%s\n' "$*"; }
warn() { printf 'tune-host.sh: %s\n' "$*" >&2; }
die() { # CODE TEXT
  warn "$2"
  exit "$1"
}

usage() { sed -n '3,/^$/s/^# \{0,1\}//p' "$0"; }

parse_arguments() {
  while (($#)); do
    case $1 in
      --check | --apply | --revert)
        [[ -z $mode ]] || die 2 "--$mode and $1 exclude each other"
        mode=${1#--}
        ;;
      --postgres-user | --data-dir | --only | --skip | --root)
        (($# >= 2)) || die 2 "$1 needs a value"
        take_value "$1" "$2"
        shift
        ;;
      --dry-run) dry_run=yes ;;
      -h | --help)
        usage
        exit 0
        ;;
      *) die 2 "unknown argument $1; see --help" ;;
    esac
    shift
  done
  [[ -n $mode ]] || die 2 'one of --check, --apply and --revert is needed; see --help'
}

take_value() { # OPTION VALUE
  case $1 in
    --postgres-user)
      [[ $2 =~ ^[a-zA-Z_][a-zA-Z0-9_.-]*$ ]] || die 2 "$2 is no user name"
      user=$2
      ;;
    --data-dir)
      [[ $2 == /* ]] || die 2 "--data-dir $2 is not absolute"
      data_dirs+=("$2")
      ;;
    --only)
      [[ $2 =~ ^(sysctl|limits|disk|mount)(,(sysctl|limits|disk|mount))*$ ]] ||
        die 2 "--only $2: want a list of sysctl, limits, disk, mount"
      only=$2
      ;;
    --skip) skipped+=("$2") ;;
    --root)
      [[ -d $2 ]] || die 2 "--root $2 is no folder"
      root=$(cd "$2" && pwd -P)
      if [[ $root == / ]]; then root=''; fi
      ;;
  esac
}

need_root() {
  if [[ $dry_run == yes || -n $root || $EUID -eq 0 ]]; then return; fi
  die 14 "--$mode changes the host and needs root; run it with sudo, or look with --check or --dry-run"
}

wants() { [[ ,$only, == *",$1,"* ]]; } # KIND

is_skipped() { # KEY
  local key
  for key in "${skipped[@]+"${skipped[@]}"}"; do
    if [[ $key == "$1" ]]; then return 0; fi
  done
  return 1
}

# content prints a small file below the root without its newline, or nothing.
content() { # PATH
  if [[ -r $root$1 ]]; then
    local text
    text=$(<"$root$1") && printf '%s' "$text"
  fi
}

# ---- saved values: lines of key, tab, value; the first line of a key holds

# saved prints the value that a key had before the first --apply.
saved() { # KEY
  [[ -r $root$saved_file ]] || return 1
  awk -F '\t' -v key="$1" '$1 == key { print $2; found = 1; exit } END { exit !found }' "$root$saved_file"
}

# remember saves a key's value before it is changed, unless one is saved.
remember() { # KEY VALUE
  if [[ $dry_run == yes ]] || saved "$1" >/dev/null; then return; fi
  mkdir -p "$root${saved_file%/*}"
  local next=$root$saved_file.new
  (
    umask 077
    : >"$next"
    if [[ -e $root$saved_file ]]; then cat "$root$saved_file" >"$next"; fi
    printf '%s\t%s\n' "$1" "$2" >>"$next"
  )
  sync "$next"
  mv -f "$next" "$root$saved_file"
}

# remember_file saves a whole file, base64 in one line, or that there was none.
remember_file() { # PATH
  if [[ -e $root$1 ]]; then
    remember "file:$1" "base64:$(base64 -w0 <"$root$1")"
  else
    remember "file:$1" absent
  fi
}

# ---- effects

# put writes a value into a kernel file.
put() { # PATH VALUE
  if [[ $dry_run == yes ]]; then
    say "would write $2 to $1"
    return
  fi
  if printf '%s\n' "$2" 2>/dev/null >"$root$1"; then
    say "wrote $2 to $1"
  else
    warn "cannot write $2 to $1"
    failed=1
  fi
}

# install_file replaces a configuration file by standard input in one step.
install_file() { # PATH
  local text
  text=$(cat)
  if [[ -e $root$1 && $(<"$root$1") == "$text" ]]; then return; fi
  if [[ $dry_run == yes ]]; then
    say "would write $1:"
    printf '%s\n' "$text" | sed 's/^/    /'
    return
  fi
  remember_file "$1"
  mkdir -p "$root${1%/*}"
  printf '%s\n' "$text" >"$root$1.new"
  chmod 0644 "$root$1.new"
  mv -f "$root$1.new" "$root$1"
  say "wrote $1"
}

remount() { # MOUNTPOINT OPTION
  if [[ $dry_run == yes || -n $root ]]; then
    say "would remount $1 with $2"
    return
  fi
  if mount -o "remount,$2" "$1"; then
    say "remounted $1 with $2"
  else
    warn "cannot remount $1 with $2"
    failed=1
  fi
}

# row prints a line of the table.
row() { # KEY CURRENT WANTED REASON OK?
  local mark=' '
  if [[ $5 == no ]]; then
    mark='*'
    differs=1
  fi
  printf '%s %-28s %-18s %-22s %s\n' "$mark" "$1" "$2" "$3" "$4"
}

# ---- sysctl

sysctl_path() { printf '/proc/sys/%s' "${1//.//}"; } # KEY

sysctl_fine() { # KEY VALUE
  if [[ $1 == vm.overcommit_memory ]]; then
    [[ $2 == 1 || $2 == 2 ]] # 2 is the manual's choice: somebody's decision
  else
    [[ $2 -le ${sysctl_wanted[$1]} ]]
  fi
}

# sysctl_present lists the keys that this kernel has and nobody skipped.
sysctl_present() {
  local key
  for key in "${sysctl_keys[@]}"; do
    if ! is_skipped "$key" && [[ $(content "$(sysctl_path "$key")") =~ ^[0-9]+$ ]]; then say "$key"; fi
  done
}

check_sysctl() {
  local key current ok
  for key in $(sysctl_present); do
    current=$(content "$(sysctl_path "$key")")
    ok=no
    if sysctl_fine "$key" "$current"; then ok=yes; fi
    row "$key" "$current" "${sysctl_wanted[$key]}" "${sysctl_reason[$key]}" "$ok"
  done
}

apply_sysctl() {
  local key current ours=()
  for key in $(sysctl_present); do
    current=$(content "$(sysctl_path "$key")")
    if sysctl_fine "$key" "$current"; then
      # Fine because of an earlier --apply: it stays in the file.
      if saved "sysctl:$key" >/dev/null; then ours+=("$key = $current"); fi
      continue
    fi
    ours+=("$key = ${sysctl_wanted[$key]}")
    if [[ $key == vm.overcommit_memory ]]; then
      warn "vm.overcommit_memory=1: PostgreSQL's manual recommends 2, which fits hosts that only run the server (--skip vm.overcommit_memory leaves it)"
    fi
    remember "sysctl:$key" "$current"
    put "$(sysctl_path "$key")" "${sysctl_wanted[$key]}"
  done
  if ((${#ours[@]})); then
    printf '%s\n' '# Written by tune-host.sh --apply; tune-host.sh --revert removes it.' "${ours[@]}" | install_file "$sysctl_file"
  fi
}

# ---- limits.conf(5)

# configured prints a configured limit of the user, as pam_limits picks it: the
# last line of the most specific domain. A path to leave out may be given.
configured() { # soft|hard ITEM [WITHOUT]
  local file files=("$root/etc/security/limits.conf")
  for file in "$root"/etc/security/limits.d/*.conf; do
    if [[ $file != "$root${3-}" ]]; then files+=("$file"); fi
  done
  for file in "${files[@]}"; do
    if [[ -r $file ]]; then cat "$file" && echo; fi
  done | awk -v user="$user" -v kind="$1" -v item="$2" '
    { sub(/#.*/, "") }
    NF == 4 && ($2 == kind || $2 == "-") && $3 == item {
      rank = $1 == user ? 3 : $1 == "@" user ? 2 : $1 == "*" ? 1 : 0
      if (rank > 0 && rank >= best) { best = rank; value = $4 }
    }
    END { print value }'
}

limit_fine() { # VALUE WANTED
  case $1 in
    unlimited | infinity | -1) return 0 ;;
    '' | *[!0-9]*) return 1 ;;
    *) (($1 >= $2)) ;;
  esac
}

check_limits() {
  local item soft hard ok
  for item in nofile nproc; do
    if is_skipped "$item"; then continue; fi
    soft=$(configured soft "$item") hard=$(configured hard "$item") ok=no
    if limit_fine "$soft" "${limit_wanted[$item]}" && limit_fine "$hard" "${limit_wanted[$item]}"; then ok=yes; fi
    row "$item:$user" "${soft:-none}/${hard:-none}" "${limit_wanted[$item]}" "${limit_reason[$item]}" "$ok"
  done
}

apply_limits() {
  local item kind lines=()
  for item in nofile nproc; do
    if is_skipped "$item"; then continue; fi
    for kind in soft hard; do
      if limit_fine "$(configured "$kind" "$item" "$limits_file")" "${limit_wanted[$item]}"; then continue; fi
      lines+=("$user $kind $item ${limit_wanted[$item]}")
    done
  done
  if ((${#lines[@]})); then
    printf '%s\n' '# Written by tune-host.sh --apply; tune-host.sh --revert removes it.' "${lines[@]}" | install_file "$limits_file"
  fi
}

# ---- disks

# disks lists those that order requests themselves or leave it to us; loop,
# memory and stacked devices are none.
disks() {
  local dir name
  for dir in "$root"/sys/block/*/queue; do
    name=${dir%/queue}
    name=${name##*/}
    case $name in
      '*' | loop* | ram* | zram* | md* | dm-* | sr* | fd* | nbd*) ;;
      *) say "$name" ;;
    esac
  done
}

# chosen prints the bracketed word of a list, or its only word.
chosen() { # LIST
  if [[ $1 =~ \[([a-z0-9_-]+)\] ]]; then
    printf '%s' "${BASH_REMATCH[1]}"
  elif [[ $1 != *' '* ]]; then
    printf '%s' "$1"
  fi
}

# deadline prints the deadline scheduler that a list offers, or nothing.
deadline() { # LIST
  local word
  for word in mq-deadline deadline; do
    if [[ " ${1//[\[\]]/} " == *" $word "* ]]; then
      printf '%s' "$word"
      return
    fi
  done
}

self_ordering() { # DISK
  [[ $1 == nvme* || $1 == vd* || $1 == xvd* || $(content "/sys/block/$1/queue/rotational") == 0 ]]
}

scheduler_fine() { # DISK SCHEDULER
  case $2 in
    mq-deadline | deadline) ;;
    none | noop) self_ordering "$1" ;;
    *) return 1 ;;
  esac
}

check_disks() {
  local disk queue list now wanted ok
  for disk in $(disks); do
    queue=/sys/block/$disk/queue
    list=$(content "$queue/scheduler")
    now=$(chosen "$list")
    if [[ -n $now ]] && ! is_skipped "scheduler:$disk" && ! is_skipped scheduler; then
      ok=yes
      wanted=$(deadline "$list")
      if ! scheduler_fine "$disk" "$now" && [[ -n $wanted ]]; then ok=no; fi
      wanted=${wanted:-$now}
      if self_ordering "$disk"; then wanted="none or ${wanted/#none/mq-deadline}"; fi
      row "scheduler:$disk" "$now" "$wanted" 'bounds how long a read waits behind writes' "$ok"
    fi
    now=$(content "$queue/add_random")
    if [[ -n $now ]] && ! is_skipped "add_random:$disk" && ! is_skipped add_random; then
      ok=no
      if [[ $now == 0 ]]; then ok=yes; fi
      row "add_random:$disk" "$now" 0 'requests need not feed the random pool' "$ok"
    fi
  done
}

apply_disks() {
  local disk rules=()
  for disk in $(disks); do
    if ! is_skipped scheduler && ! is_skipped "scheduler:$disk"; then apply_scheduler "$disk"; fi
    if ! is_skipped add_random && ! is_skipped "add_random:$disk"; then apply_add_random "$disk"; fi
  done
  if ((${#rules[@]})); then
    printf '%s\n' '# Written by tune-host.sh --apply; tune-host.sh --revert removes it.' "${rules[@]}" | install_file "$udev_file"
    if [[ -z $root && $dry_run == no ]] && command -v udevadm >/dev/null; then
      udevadm control --reload-rules || warn 'udev did not reload its rules; they hold after the next boot'
    fi
  fi
}

# apply_scheduler and apply_add_random add to the caller's rules.
apply_scheduler() { # DISK
  local queue=/sys/block/$1/queue list now wanted
  list=$(content "$queue/scheduler")
  now=$(chosen "$list")
  wanted=$(deadline "$list")
  if [[ -z $now || -z $wanted ]]; then return; fi
  if ! scheduler_fine "$1" "$now"; then
    remember "scheduler:$1" "$now"
    put "$queue/scheduler" "$wanted"
  elif ! saved "scheduler:$1" >/dev/null; then
    return
  fi
  rules+=("ACTION==\"add|change\", SUBSYSTEM==\"block\", KERNEL==\"$1\", ATTR{queue/scheduler}=\"$wanted\"")
}

apply_add_random() { # DISK
  local file=/sys/block/$1/queue/add_random now
  now=$(content "$file")
  if [[ -z $now ]]; then return; fi
  if [[ $now != 0 ]]; then
    remember "add_random:$1" "$now"
    put "$file" 0
  elif ! saved "add_random:$1" >/dev/null; then
    return
  fi
  rules+=("ACTION==\"add|change\", SUBSYSTEM==\"block\", KERNEL==\"$1\", ATTR{queue/add_random}=\"0\"")
}

# ---- mounts

# mount_of prints mount point, options of the mount, and of the file system
# for a path: the longest mount point wins, of several the last.
mount_of() { # PATH
  local path=$1
  if [[ -z $root ]]; then path=$(readlink -m -- "$1"); fi
  WANTED=$path awk '
    function plain(s) { gsub(/\\040/, " ", s); gsub(/\\011/, "\t", s); gsub(/\\134/, "\\", s); return s }
    {
      point = plain($5); wanted = ENVIRON["WANTED"]
      if ((point == "/" || wanted == point || index(wanted, point "/") == 1) && length(point) >= length(best)) {
        best = point; own = $6; super = $NF
      }
    }
    END { if (best != "") printf "%s\t%s\t%s\n", best, own, super }' "$root/proc/self/mountinfo"
}

access_times() { # OPTIONS
  local option
  for option in ${1//,/ }; do
    case $option in
      noatime | relatime | strictatime)
        printf '%s' "$option"
        return
        ;;
    esac
  done
  printf 'strictatime'
}

# each_mount calls a function once for each mount of the data directories.
each_mount() { # FUNCTION
  local dir point own super seen=$'\n'
  for dir in "${data_dirs[@]+"${data_dirs[@]}"}"; do
    IFS=$'\t' read -r point own super < <(mount_of "$dir") || {
      warn "no mount found for $dir"
      failed=1
      continue
    }
    if is_skipped "mount:$point" || [[ $seen == *$'\n'"$point"$'\n'* ]]; then continue; fi
    seen+=$point$'\n'
    "$1" "$point" "$own" "$super"
  done
}

check_mount() { # MOUNTPOINT OPTIONS SUPEROPTIONS
  local now ok=no
  now=$(access_times "$2")
  if [[ $now == noatime ]]; then ok=yes; fi
  row "mount:$1" "$now" noatime 'reading a table never writes an inode (implies nodiratime)' "$ok"
  if [[ ,$3, == *,data=writeback,* ]]; then
    warn "$1 is mounted with data=writeback: after a crash, files may hold other files' old blocks (left alone)"
  fi
}

apply_mount() { # MOUNTPOINT OPTIONS SUPEROPTIONS
  local now
  now=$(access_times "$2")
  if [[ $now == noatime ]]; then return; fi
  if [[ -z $root ]]; then remember "mount:$1" "$now"; fi
  remount "$1" noatime
  say "to keep it after a reboot, add noatime to the options of $1 in /etc/fstab"
}

# ---- verbs

check() {
  row KEY CURRENT WANTED REASON yes
  if wants sysctl; then check_sysctl; fi
  if wants limits; then check_limits; fi
  if wants disk; then check_disks; fi
  if wants mount; then each_mount check_mount; fi
  if ((failed)); then exit 1; fi
  if ((differs)); then
    say
    say "* differs; tune-host.sh --apply sets it, --revert takes it back"
    exit 1
  fi
}

apply() {
  need_root
  if wants sysctl; then apply_sysctl; fi
  if wants limits; then apply_limits; fi
  if wants disk; then apply_disks; fi
  if wants mount; then each_mount apply_mount; fi
  exit "$failed"
}

# revert undoes every saved line. The saved values go last, and only when all
# were restored: what did not work can be tried again.
revert() {
  need_root
  if [[ ! -e $root$saved_file ]]; then
    say 'nothing to revert: no values are saved'
    return
  fi
  local key value
  while IFS=$'\t' read -r key value; do
    revert_line "$key" "$value"
  done <"$root$saved_file"
  if [[ $dry_run == yes ]]; then return; fi
  if ((failed)); then die 1 "not everything could be restored; $saved_file is kept"; fi
  rm -f "$root$saved_file"
  rmdir --ignore-fail-on-non-empty "$root${saved_file%/*}"
  if [[ -z $root ]] && command -v udevadm >/dev/null; then udevadm control --reload-rules || true; fi
}

revert_line() { # KEY VALUE
  local name=${1#*:}
  case $1 in
    sysctl:*) put "$(sysctl_path "$name")" "$2" ;;
    scheduler:*) put_if_present "/sys/block/$name/queue/scheduler" "$2" ;;
    add_random:*) put_if_present "/sys/block/$name/queue/add_random" "$2" ;;
    mount:*) revert_mount "$name" "$2" ;;
    file:*) revert_file "$name" "$2" ;;
    *)
      warn "unknown saved key $1"
      failed=1
      ;;
  esac
}

# put_if_present: a disk that is gone needs nothing restored.
put_if_present() { # PATH VALUE
  if [[ -e $root$1 ]]; then put "$1" "$2"; fi
}

# revert_mount: atime takes noatime out of the options that a remount starts
# from. What is not mounted any more needs nothing restored.
revert_mount() { # MOUNTPOINT OPTION
  if mountpoint -q "$1"; then remount "$1" "atime,$2"; fi
}

revert_file() { # PATH absent|base64:TEXT
  if [[ $dry_run == yes ]]; then
    say "would restore $1"
    return
  fi
  if [[ $2 == absent ]]; then
    rm -f "$root$1"
    say "removed $1"
    return
  fi
  base64 -d <<<"${2#base64:}" >"$root$1.new"
  chmod --reference="$root$1" "$root$1.new" 2>/dev/null || chmod 0644 "$root$1.new"
  mv -f "$root$1.new" "$root$1"
  say "restored $1"
}

parse_arguments "$@"
"$mode"
