SELECT window_start, window_end, match_id, team, events, passes, shots, xg FROM team_minute ORDER BY window_start, match_id, team
