"""The core-hours of a campaign: what its rows took, and a forecast of what is left, part by part."""

from statistics import mean

from keeping import rows_of_job


def part_of(campaign, job):
    "The name of the first part that a job belongs to; ValueError for a job of no part."
    found = next((name for name, holds in campaign.parts.items() if holds(*job)), None)
    if campaign.parts and found is None:
        raise ValueError(f"{job[1].label} seed {job[2]} ({job[0]}) belongs to no part of its campaign")
    return found


def minutes_of_jobs(campaign, rows):
    """Minutes of each run and each late judgement in the rows, training and judging, by what tells it apart.

    A key begins with world, method and kind of job. Pixels alone took none.
    """
    found = {}
    for r in rows:
        late = r["judge"] if r["judge"] in campaign.late else "run"
        key = (r["world"], r["method"], late, r["seed"], r["protocol"], r.get("steps"), r.get("init"))
        key += (r.get("dial"), r.get("dial_value"), r.get("arm"))
        spent = r.get("minutes", 0.0) + r.get("judging", 0.0)
        found[key] = max(found.get(key, 0.0), spent)
    return found


def own_rows(campaign, rows):
    "The rows of a campaign's worlds under the protocol of today."
    return [
        r for r in rows if r["world"] in campaign.worlds and r["protocol"] == campaign.version(r["world"])
    ]


def hours_used(campaign, rows):
    "Core-hours that made the rows of this protocol."
    return sum(minutes_of_jobs(campaign, own_rows(campaign, rows)).values()) / 60


def forecast(campaign, job, spent):
    """Minutes that a job will take: the mean of those measured of its world and method, else the guess.

    `spent`: of `minutes_of_jobs`.
    """
    kind, arm, _ = job
    known = [v for k, v in spent.items() if k[:3] == (arm.world, arm.name, kind) and v > 0]
    return mean(known) if known else campaign.guess(kind, arm)


def too_long(campaign, job, rows):
    "In words, what a job will take and the ceiling does not leave; nothing where it fits."
    used = hours_used(campaign, rows)
    hours = forecast(campaign, job, minutes_of_jobs(campaign, own_rows(campaign, rows))) / 60
    if used + hours <= campaign.ceiling:
        return ""
    return f"it takes {hours:.2f} core-hours, and {used:.1f} of {campaign.ceiling:g} are used"


def budget_table(campaign, jobs, rows):
    """A dict a part: name, jobs, done, hours used, hours to come, and how many jobs no hours are left for.

    Jobs are taken in order, until the campaign's ceiling is used.
    """
    mine = own_rows(campaign, rows)
    spent, total = minutes_of_jobs(campaign, mine), hours_used(campaign, mine)
    parts = {
        name: dict(part=name, jobs=0, done=0, used=0.0, to_come=0.0, dropped=0) for name in campaign.parts
    }
    for job in jobs:
        line, there = parts[part_of(campaign, job)], rows_of_job(campaign, *job, mine)
        line["jobs"] += 1
        if there:
            line["done"] += 1
            line["used"] += sum(minutes_of_jobs(campaign, there).values()) / 60
            continue
        hours = forecast(campaign, job, spent) / 60
        if total + hours > campaign.ceiling:
            line["dropped"] += 1
            continue
        total += hours
        line["to_come"] += hours
    return list(parts.values())


def budget_lines(campaign, jobs, rows):
    "The budget in words: a line a part, and a last one on what is used, left, and dropped from the end."
    if not campaign.parts:
        return []
    table = budget_table(campaign, jobs, rows)
    lines = [
        f"{'part':28} {'jobs':>5} {'done':>5} {'hours used':>11} {'to come':>8} {'no hours left for':>18}"
    ]
    for line in table:
        counts = f"{line['part']:28} {line['jobs']:5} {line['done']:5}"
        hours = f"{line['used']:11.1f} {line['to_come']:8.1f}"
        lines.append(f"{counts} {hours} {line['dropped'] or '-':>18}")
    used, to_come = hours_used(campaign, rows), sum(line["to_come"] for line in table)
    dropped = [f"{line['dropped']} of {line['part']}" for line in table if line["dropped"]]
    lines.append(
        f"{used:.1f} of {campaign.ceiling:g} core-hours used, {max(0.0, campaign.ceiling - used):.1f} left, "
        f"{to_come:.1f} forecast; dropped from the end: {', '.join(dropped) or 'nothing'}"
    )
    return lines
